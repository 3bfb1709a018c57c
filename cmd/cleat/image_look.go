package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

// spaceJSON is the JSON form of a size on disk, in bytes.
type spaceJSON struct {
	Size   int64 `json:"size"`
	Unique int64 `json:"unique"`
	Shared int64 `json:"shared"`
}

// usageJSON is the JSON form of an image's disk usage.
type usageJSON struct {
	Name       string               `json:"name"`
	Digest     string               `json:"digest"`
	Compressed spaceJSON            `json:"compressed"`
	Unpacked   map[string]spaceJSON `json:"unpacked"`
}

func imageUsageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "usage [FLAGS] [IMAGE...]", Short: "show the disk usage of images",
		Long: "UNIQUE is what removing the image frees, SHARED what another image uses too; several names of one digest\n" +
			"are one image. COMPRESSED is the size in a registry, UNPACKED the size in the snapshotter.",
		Args: argCount(0, -1), ValidArgsFunction: a.completeArgs(true, listImages),
	}
	l := &listFlags{}
	l.declare(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error {
			list, err := c.ImageUsage(ctx, args...)
			if err != nil {
				return err
			}
			return showUsage(a, l, list)
		})
	}
	return cmd
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

func imageLabelCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "label [FLAGS] IMAGE [KEY=VALUE...]", Short: "set and show labels of an image name",
		Long: "KEY= removes a label. The resulting labels are printed. cleat image ls -f 'labels.KEY==VALUE' finds images\n" +
			"by label.",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(false, listImages),
	}
	l := &listFlags{}
	l.declare(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		labels := make(map[string]string)
		for _, text := range args[1:] {
			key, value, ok := strings.Cut(text, "=")
			if !ok || key == "" {
				return usage(cmd.CommandPath(), fmt.Errorf("label %q: want KEY=VALUE, or KEY= to remove it: %w", text, errdefs.ErrInvalidArgument))
			}
			labels[key] = value
		}
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error {
			img, err := c.LabelImage(ctx, args[0], labels)
			if err != nil {
				return err
			}
			return showLabels(a, l, img)
		})
	}
	return cmd
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

// referrerJSON is the JSON form of a referrer.
type referrerJSON struct {
	Digest       string            `json:"digest"`
	MediaType    string            `json:"media_type"`
	ArtifactType string            `json:"artifact_type"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations"`
}

func imageReferrersCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "referrers [FLAGS] REFERENCE", Short: "list the referrers of an image in a registry",
		Long: "Referrers are signatures, software bills of materials and the like.\n\n" + credentialsDetail,
		Args: argCount(1, 1), ValidArgsFunction: a.completeArgs(false, listImages),
	}
	fs := cmd.Flags()
	var flags registryFlags
	l := &listFlags{}
	l.declare(fs)
	flags.declareUser(fs)
	kind := fs.String("artifact-type", "", "only referrers of the media type `TYPE`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
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
	return cmd
}

func showReferrers(a *app, l *listFlags, list []client.Referrer) error {
	names, rows, asJSON := []string{}, [][]string{}, []referrerJSON{}
	for _, r := range list {
		if r.Annotations == nil {
			r.Annotations = map[string]string{}
		}
		names = append(names, r.Digest)
		rows = append(rows, []string{r.Digest, cmp.Or(r.ArtifactType, r.MediaType), size(uint64(max(r.Size, 0)))})
		asJSON = append(asJSON, referrerJSON(r))
	}
	return l.show(a.stdout, []string{"DIGEST", "TYPE", "SIZE"}, rows, names, asJSON)
}
