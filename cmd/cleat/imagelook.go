package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cleatproject/cleat/client"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

// spaceJSON is bytes on disk for programs.
type spaceJSON struct {
	Size   int64 `json:"size"`
	Unique int64 `json:"unique"`
	Shared int64 `json:"shared"`
}

// usageJSON is what an image takes on disk, for programs.
type usageJSON struct {
	Name       string               `json:"name"`
	Digest     string               `json:"digest"`
	Compressed spaceJSON            `json:"compressed"`
	Unpacked   map[string]spaceJSON `json:"unpacked"`
}

func imageUsageCommand() command {
	return command{
		name: "image usage", args: "[IMAGE...]", max: -1,
		short: "show what images take on disk",
		detail: "Unique is what goes with the image, shared what another image has too; several names of one digest\n" +
			"are one image. COMPRESSED is as in a registry, UNPACKED what the snapshotter keeps.",
		setup: func(fs *pflag.FlagSet) action {
			l := &listFlags{}
			l.declare(fs)
			return func(ctx context.Context, a *app, args []string) error {
				return a.withClient(ctx, func(c *client.Client) error {
					list, err := c.ImageUsage(ctx, args...)
					if err != nil {
						return err
					}
					return showUsage(a, l, list)
				})
			}
		},
	}
}

func showUsage(a *app, l *listFlags, list []client.ImageUsage) error {
	names, rows, asJSON := []string{}, [][]string{}, []usageJSON{}
	show := func(s client.Space) []string {
		return []string{size(uint64(max(s.Size, 0))), size(uint64(max(s.Unique, 0))), size(uint64(max(s.Shared, 0)))}
	}
	for _, u := range list {
		names = append(names, u.Name)
		j := usageJSON{Name: u.Name, Digest: u.Digest, Compressed: spaceJSON(u.Compressed), Unpacked: map[string]spaceJSON{}}
		first := append([]string{u.Name}, show(u.Compressed)...)
		for _, snapshotter := range slices.Sorted(maps.Keys(u.Unpacked)) {
			j.Unpacked[snapshotter] = spaceJSON(u.Unpacked[snapshotter])
			rows = append(rows, append(append(first, snapshotter), show(u.Unpacked[snapshotter])...))
			first = make([]string, len(first))
		}
		if len(u.Unpacked) == 0 {
			rows = append(rows, append(first, "-", "-", "-", "-"))
		}
		asJSON = append(asJSON, j)
	}
	return l.show(a.stdout, []string{"NAME", "COMPRESSED", "UNIQUE", "SHARED", "SNAPSHOTTER", "UNPACKED", "UNIQUE", "SHARED"}, rows, names, asJSON)
}

func imageLabelCommand() command {
	return command{
		name: "image label", args: "IMAGE [KEY=VALUE...]", min: 1, max: -1,
		short:  "set and show labels of an image's name",
		detail: "KEY= removes a label. What is printed is what the name has then. cleat image ls -f 'labels.KEY==VALUE' finds it.",
		setup: func(fs *pflag.FlagSet) action {
			l := &listFlags{}
			l.declare(fs)
			return func(ctx context.Context, a *app, args []string) error {
				labels := make(map[string]string)
				for _, text := range args[1:] {
					key, value, ok := strings.Cut(text, "=")
					if !ok || key == "" {
						return usage("cleat image label", fmt.Errorf("label %q: want KEY=VALUE, or KEY= to remove it: %w", text, errdefs.ErrInvalidArgument))
					}
					labels[key] = value
				}
				return a.withClient(ctx, func(c *client.Client) error {
					img, err := c.LabelImage(ctx, args[0], labels)
					if err != nil {
						return err
					}
					return showLabels(a, l, img)
				})
			}
		},
	}
}

func showLabels(a *app, l *listFlags, img client.Image) error {
	asJSON := imageToJSON(img).Labels
	names, rows := []string{}, [][]string{}
	for _, key := range slices.Sorted(maps.Keys(img.Labels)) {
		names = append(names, key)
		rows = append(rows, []string{key, img.Labels[key]})
	}
	return l.show(a.stdout, []string{"LABEL", "VALUE"}, rows, names, asJSON)
}

// referrerJSON is a referrer for programs.
type referrerJSON struct {
	Digest       string            `json:"digest"`
	MediaType    string            `json:"media_type"`
	ArtifactType string            `json:"artifact_type"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations"`
}

func imageReferrersCommand() command {
	return command{
		name: "image referrers", args: "REFERENCE", min: 1, max: 1,
		short:  "list what a registry has that refers to an image",
		detail: "Signatures, lists of parts and the like.\n" + credentialsDetail,
		setup: func(fs *pflag.FlagSet) action {
			var flags registryFlags
			l := &listFlags{}
			l.declare(fs)
			fs.StringVarP(&flags.user, "user", "u", "", "log in as `user[:password]`; without a password it is read from stdin")
			kind := fs.String("artifact-type", "", "only those of this media `type`")
			return func(ctx context.Context, a *app, args []string) error {
				cred, err := flags.credential(ctx, a, args[0])
				if err != nil {
					return err
				}
				return a.withClient(ctx, func(c *client.Client) error {
					_, list, err := c.Referrers(ctx, args[0], *kind, cred)
					if err != nil {
						return registryHint(err)
					}
					return showReferrers(a, l, list)
				})
			}
		},
	}
}

func showReferrers(a *app, l *listFlags, list []client.Referrer) error {
	names, rows, asJSON := []string{}, [][]string{}, []referrerJSON{}
	for _, r := range list {
		if r.Annotations == nil {
			r.Annotations = map[string]string{}
		}
		names = append(names, r.Digest)
		rows = append(rows, []string{r.Digest, or(r.ArtifactType, r.MediaType), size(uint64(max(r.Size, 0)))})
		asJSON = append(asJSON, referrerJSON(r))
	}
	return l.show(a.stdout, []string{"DIGEST", "TYPE", "SIZE"}, rows, names, asJSON)
}
