package containers

import (
	"encoding/json"

	"github.com/cleatproject/cleat/internal/rawjson"
)

// ProcessDefaults are attributes of a container's process that the OCI runtime would otherwise let
// it inherit from the shim, and so from the daemon. They apply where the spec has no value.
type ProcessDefaults struct {
	// NoFile is the hard limit of open files; the soft one is 1024, so that programs which use
	// select(2), or close every possible descriptor, work. 0 leaves both to the OCI runtime.
	NoFile uint64
	// ResetOOMScore sets oom_score_adj to 0.
	ResetOOMScore bool
}

// softNoFile is the soft limit of open files that Linux gives to the first process.
const softNoFile = 1024

// rlimit is the spec's POSIXRlimit.
type rlimit struct {
	Type string `json:"type"`
	Hard uint64 `json:"hard"`
	Soft uint64 `json:"soft"`
}

// complete returns a client's spec with the defaults filled in. Every other member is as the client
// wrote it.
func (d ProcessDefaults) complete(spec []byte) ([]byte, error) {
	all, err := rawjson.Parse(spec)
	if err != nil {
		return nil, specError(err)
	}
	if all["process"] == nil {
		return spec, nil
	}
	process, err := all.Child("process")
	if err != nil {
		return nil, specError(err)
	}
	if err := d.fill(process); err != nil {
		return nil, err
	}
	if err := all.Set("process", process); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// fill sets the defaults in a spec's process.
func (d ProcessDefaults) fill(process rawjson.Object) error {
	if d.ResetOOMScore {
		var score *int
		if err := process.Get("oomScoreAdj", &score); err != nil {
			return specError(err)
		}
		if score == nil {
			if err := process.Set("oomScoreAdj", 0); err != nil {
				return err
			}
		}
	}
	if d.NoFile == 0 {
		return nil
	}
	var limits []rlimit
	if err := process.Get("rlimits", &limits); err != nil {
		return specError(err)
	}
	for _, l := range limits {
		if l.Type == "RLIMIT_NOFILE" {
			return nil
		}
	}
	return process.Set("rlimits", append(limits, rlimit{Type: "RLIMIT_NOFILE", Hard: d.NoFile, Soft: min(softNoFile, d.NoFile)}))
}
