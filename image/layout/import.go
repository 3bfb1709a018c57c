package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/ctxio"
)

// maxFiles bounds the files of an archive.
const maxFiles = 100_000

// ImportOptions change how an archive is imported. The zero value uses the names of
// the archive.
type ImportOptions struct {
	// Name names the archive's image, whatever its name in the archive; an archive of
	// several images is then refused.
	Name string
	// Repository completes names in an OCI layout that are only a tag.
	Repository string
	// Whole also returns, as the last with Whole set, the index of the whole archive. Images then
	// have no normalised names.
	Whole bool
	// Compress compresses uncompressed layers of docker save with gzip. Layers of an OCI layout
	// are kept: their digests are in its documents.
	Compress bool
}

// Imported is a name and its target.
type Imported struct {
	// Name is normalised; "" if the archive names nothing.
	Name   string
	Target ocispec.Descriptor
	// Stated is the name as written in the archive, Tag the one written if it is only a tag.
	Stated, Tag string
	// Whole marks the index of the whole archive.
	Whole bool
}

// Import reads an archive to its end, stores its blobs and returns the images it holds;
// recording them is up to the caller. The archive is a tar stream, compressed or not,
// of an OCI image layout or from `docker save`; one that is both is treated as the former.
// Every image returned is complete for at least one platform. Errors of the class invalid
// argument blame the archive. Blobs stored before an error remain, for the caller's garbage
// collection; ingests do not.
func Import(ctx context.Context, c image.Content, r io.Reader, opts ImportOptions) ([]Imported, error) {
	images, err := importArchive(ctx, c, r, opts)
	if err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	return images, nil
}

func importArchive(ctx context.Context, c image.Content, r io.Reader, opts ImportOptions) ([]Imported, error) {
	if opts.Name != "" {
		name, err := image.NormalizeName(opts.Name)
		if err != nil {
			return nil, err
		}
		opts.Name = name
	}
	im := &importer{content: c, compress: opts.Compress, buf: make([]byte, ctxio.BufferSize), refPrefix: "import-" + rand.Text() + "-", files: make(map[string]savedFile), links: make(map[string]string)}
	if err := im.read(ctx, r); err != nil {
		return nil, err
	}
	var images []Imported
	var err error
	switch {
	case im.index != nil && im.layout:
		images, err = im.fromLayout(ctx, opts)
	case im.manifest != nil:
		images, err = im.fromDockerSave(ctx)
	case im.index != nil:
		return nil, invalidf("archive has an index.json but no oci-layout")
	default:
		return nil, invalidf("archive is neither an OCI image layout (index.json) nor from docker save (manifest.json)")
	}
	if err != nil {
		return nil, err
	}
	if images, err = rename(images, opts.Name); err != nil || !opts.Whole {
		return images, err
	}
	index, err := im.archiveIndex(ctx, images)
	return append(images, Imported{Target: index, Whole: true}), err
}

// rename names the only image.
func rename(images []Imported, name string) ([]Imported, error) {
	if len(images) == 0 {
		return nil, invalidf("archive has no image")
	}
	if name == "" {
		return images, nil
	}
	for _, i := range images[1:] {
		if i.Target.Digest != images[0].Target.Digest {
			return nil, invalidf("archive has several images, want one for a single name")
		}
	}
	return []Imported{{Name: name, Target: images[0].Target}}, nil
}

// importer is one call of Import.
type importer struct {
	content   image.Content
	buf       []byte
	refPrefix string
	refs      int
	compress  bool

	layout   bool   // oci-layout was present
	index    []byte // index.json
	manifest []byte // manifest.json
	// files and links are the possible targets of docker save's references, by path.
	files map[string]savedFile
	links map[string]string
}

// savedFile is a stored file whose path does not state its digest.
type savedFile struct {
	digest digest.Digest
	size   int64
	magic  []byte // its first bytes
}

// read stores or remembers every file of the archive.
func (im *importer) read(ctx context.Context, r io.Reader) error {
	plain, err := archive.Decompress(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	tr := tar.NewReader(plain)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return classify(err)
		}
		if n >= maxFiles {
			return invalidf("archive has more than %d files", maxFiles)
		}
		if err := im.file(ctx, hdr, tr); err != nil {
			return fmt.Errorf("file %.256q: %w", hdr.Name, classify(err))
		}
	}
	// The end of a compressed stream has its checksum.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, plain, im.buf)
	return classify(err)
}

func classify(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidf("archive is cut short: %w", err)
	case errors.Is(err, tar.ErrHeader):
		return invalidf("not a tar archive, or corrupt: %w", err)
	default:
		return err
	}
}

func (im *importer) file(ctx context.Context, hdr *tar.Header, data io.Reader) (err error) {
	name := strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
	switch hdr.Typeflag {
	case tar.TypeReg:
	case tar.TypeSymlink:
		im.links[name] = strings.TrimPrefix(path.Join("/", path.Dir(name), hdr.Linkname), "/")
		return nil
	case tar.TypeLink:
		im.links[name] = strings.TrimPrefix(path.Clean("/"+hdr.Linkname), "/")
		return nil
	default:
		return nil
	}
	switch dir, base := path.Split(name); {
	case name == ocispec.ImageLayoutFile:
		im.layout = true
	case name == ocispec.ImageIndexFile:
		im.index, err = readBounded(hdr, data)
	case name == "manifest.json":
		im.manifest, err = readBounded(hdr, data)
	case strings.HasPrefix(name, ocispec.ImageBlobsDir+"/"):
		d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(dir)), base)
		if err := d.Validate(); err != nil || path.Dir(path.Clean(dir)) != ocispec.ImageBlobsDir {
			return invalidf("path is not a digest")
		}
		err = im.store(ctx, name, d, hdr.Size, data)
	case base == "json" || base == "VERSION" || name == "repositories":
		// Files that docker save adds for old versions of Docker.
	default:
		err = im.store(ctx, name, "", hdr.Size, data)
	}
	return err
}

func readBounded(hdr *tar.Header, data io.Reader) ([]byte, error) {
	if hdr.Size > image.MaxDocument {
		return nil, invalidf("size %d exceeds the maximum of %d", hdr.Size, image.MaxDocument)
	}
	return io.ReadAll(data)
}

// store writes a blob and remembers it by its path. expected may be empty.
func (im *importer) store(ctx context.Context, name string, expected digest.Digest, size int64, data io.Reader) error {
	im.refs++
	ref := fmt.Sprint(im.refPrefix, im.refs)
	w, err := im.content.Writer(ctx, ref, content.WriterOptions{Expected: expected, Total: size})
	if errdefs.IsAlreadyExists(err) && expected != "" {
		im.files[name] = savedFile{digest: expected, size: size, magic: peek(data)}
		return nil
	}
	if err != nil {
		return err
	}
	f, err := im.fill(ctx, w, expected, size, data)
	if err != nil {
		return errors.Join(err, w.Close(), im.content.Abort(context.WithoutCancel(ctx), ref))
	}
	im.files[name] = f
	return w.Close()
}

func (im *importer) fill(ctx context.Context, w image.BlobWriter, expected digest.Digest, size int64, data io.Reader) (savedFile, error) {
	magic := peek(data)
	f := savedFile{digest: expected, size: size, magic: magic}
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, io.MultiReader(bytes.NewReader(magic), ctxio.Reader(ctx, data)), im.buf)
	if err != nil {
		return f, err
	}
	if f.digest == "" {
		f.digest = w.Digest()
	}
	if err := w.Commit(ctx, size, f.digest); err != nil && !errdefs.IsAlreadyExists(err) {
		if errdefs.IsFailedPrecondition(err) {
			return f, invalidf("content does not match the digest in its name: %w", err)
		}
		return f, err
	}
	return f, nil
}

// peek reads the first bytes.
func peek(data io.Reader) []byte {
	magic := make([]byte, 4)
	n, _ := io.ReadFull(data, magic) // an error comes again with the next read
	return magic[:n]
}
