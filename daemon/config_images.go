package daemon

import (
	"maps"
	"slices"

	"github.com/cleatproject/cleat/archive"
)

// StreamProcessor is the configuration of a program that turns layers of one media type into another.
type StreamProcessor struct {
	// Accepts are the media types it reads, Returns is the one it writes.
	Accepts []string `toml:"accepts"`
	Returns string   `toml:"returns"`
	// Path is the program's, absolute.
	Path string   `toml:"path"`
	Args []string `toml:"args"`
	// Env is its whole environment, but for what it is told of the stream.
	Env []string `toml:"env"`
}

// processors returns the configured stream processors, in the order of their names.
func (c *Config) processors() (list []archive.Processor) {
	for _, id := range slices.Sorted(maps.Keys(c.StreamProcessors)) {
		p := c.StreamProcessors[id]
		list = append(list, archive.Processor{ID: id, Accepts: p.Accepts, Returns: p.Returns, Path: p.Path, Args: p.Args, Env: p.Env})
	}
	return list
}

func (c *Config) checkProcessors() error {
	for _, p := range c.processors() {
		if err := p.Check(); err != nil {
			return err
		}
	}
	return nil
}
