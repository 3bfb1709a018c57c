package image

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parseConfig parses a configuration. A field that is missing, null or of an unexpected type is treated
// as missing, as in many images that other engines run; only the layers have to be right. A client that runs
// the image reads the document itself.
func parseConfig(raw []byte) (ocispec.Image, error) {
	var config ocispec.Image
	var fields struct {
		Architecture, OS, Variant, Author json.RawMessage
		OSVersion                         json.RawMessage `json:"os.version"`
		OSFeatures                        json.RawMessage `json:"os.features"`
		Created, Config, History          json.RawMessage
		RootFS                            struct {
			Type    json.RawMessage `json:"type"`
			DiffIDs json.RawMessage `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return config, invalidf("read configuration: %w", err)
	}
	for _, f := range []struct {
		raw  json.RawMessage
		into any
	}{
		{fields.Architecture, &config.Architecture},
		{fields.OS, &config.OS},
		{fields.Variant, &config.Variant},
		{fields.OSVersion, &config.OSVersion},
		{fields.OSFeatures, &config.OSFeatures},
		{fields.Author, &config.Author},
		{fields.Created, &config.Created},
		{fields.History, &config.History},
	} {
		_ = json.Unmarshal(f.raw, f.into) // else treated as missing
	}
	_ = json.Unmarshal(fields.Config, &config.Config) // which continues after a field of another type
	var number struct{ User json.Number }
	if config.Config.User == "" && json.Unmarshal(fields.Config, &number) == nil {
		config.Config.User = number.User.String()
	}
	config.RootFS.Type = "layers"
	if fields.RootFS.DiffIDs != nil {
		if err := json.Unmarshal(fields.RootFS.DiffIDs, &config.RootFS.DiffIDs); err != nil {
			return config, invalidf("read the layers of a configuration: %w", err)
		}
	}
	for _, d := range config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return config, invalidf("layer digest %.160q: %w", d, err)
		}
	}
	return config, nil
}
