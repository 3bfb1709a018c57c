package daemon

import (
	"errors"
	"io/fs"

	"github.com/cleatproject/cleat/proto/reason"
)

// Hint returns what an administrator can do about an error of the daemon's start or of doctor, or "".
func Hint(err error) string {
	switch reason.Of(err) {
	case reason.MetadataDamaged:
		return "stop cleatd and run 'cleat doctor --repair', or restore a backup of the file; 'cleat doctor' shows the damage"
	case reason.MetadataNewer:
		return "run the newer cleatd again, or restore the backup from before the upgrade"
	case reason.MetadataOlder:
		return "start cleatd once: it migrates the database"
	case reason.DirectoryInUse:
		return "stop the other cleatd, or give this one its own --root and --state"
	case reason.DiskFull:
		return "free some space on the file system of the daemon's root directory"
	}
	if errors.Is(err, fs.ErrPermission) {
		return "cleatd needs the rights of root"
	}
	return ""
}
