package containers

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/cleatproject/cleat/metadata"
)

// recordName is the extension of a container under which its runRecord is kept, and its type.
const recordName = "cleat.v1.RunRecord"

// runRecord holds what a container that was made by Run has besides the published fields, as JSON in
// an extension.
type runRecord struct {
	// Token is the mark of the call that made the container.
	Token      string `json:"token,omitempty"`
	AutoRemove bool   `json:"autoRemove,omitempty"`
	// StorageSize is the limit of its storage that the call asked for; its snapshot's label has that of now.
	StorageSize int64     `json:"storageSize,omitempty"`
	LogPath     string    `json:"logPath,omitempty"`
	Command     []string  `json:"command,omitempty"`
	StartedAt   time.Time `json:"startedAt"`
	Terminal    bool      `json:"terminal,omitempty"`
	Stdin       string    `json:"stdin,omitempty"`
	Stdout      string    `json:"stdout,omitempty"`
	Stderr      string    `json:"stderr,omitempty"`
	// Exit is set once the container has ended and its task was deleted.
	Exit *runExit `json:"exit,omitempty"`
}

type runExit struct {
	Status uint32    `json:"status"`
	At     time.Time `json:"at"`
	Pid    uint32    `json:"pid"`
	OOM    bool      `json:"oom,omitempty"`
}

// Managed reports whether a container was made by Run: the service restarts, follows and removes it.
func Managed(c metadata.Container) bool {
	_, ok := c.Extensions[recordName]
	return ok
}

// record reads the extension; nil for a container that a client made by other calls.
func record(c metadata.Container) (*runRecord, error) {
	ext, ok := c.Extensions[recordName]
	if !ok {
		return nil, nil // absence is an ordinary answer
	}
	var r runRecord
	if err := json.Unmarshal(ext.Value, &r); err != nil {
		return nil, fmt.Errorf("read run record of %s: %w", c.ID, err)
	}
	return &r, nil
}

// setRecord writes the extension.
func setRecord(c *metadata.Container, r *runRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write run record of %s: %w", c.ID, err)
	}
	if c.Extensions == nil {
		c.Extensions = make(map[string]metadata.Any)
	}
	c.Extensions[recordName] = metadata.Any{TypeURL: recordName, Value: data}
	return nil
}
