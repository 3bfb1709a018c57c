package spec

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// Image is what an image's configuration says about running it.
type Image struct {
	// User is USER[:GROUP], by name or number.
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	StopSignal string
	Volumes    map[string]struct{}
}

// ParseImage reads an image's configuration, as the image has it. What is not JSON is
// errdefs.ErrInvalidArgument.
func ParseImage(config []byte) (Image, error) {
	var doc struct {
		Config Image `json:"config"`
	}
	if err := json.Unmarshal(config, &doc); err != nil {
		return Image{}, fmt.Errorf("read image configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return doc.Config, nil
}
