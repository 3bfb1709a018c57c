package api

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	_ "github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// fieldsTable is the table of all fields of all requests, one a line; its head describes it.
const fieldsTable = "testdata/fields.txt"

// anyTypes are messages that requests carry in an Any.
func anyTypes() []protoreflect.FullName {
	return []protoreflect.FullName{
		"containerd.runc.v1.Options", "containerd.runc.v1.CheckpointOptions", "containerd.types.RuntimeRequest",
		"containerd.types.transfer.ImageStore", "containerd.types.transfer.OCIRegistry", "containerd.types.transfer.ImageImportStream",
		"containerd.types.transfer.ImageExportStream", "containerd.types.transfer.Data", "containerd.types.transfer.WindowUpdate",
		"containerd.types.transfer.AuthResponse",
	}
}

// requestFields returns every field that a request to a service of the API module can have, with the
// Go name that it has.
func requestFields(t *testing.T) map[string]string {
	t.Helper()
	fields := make(map[string]string)
	var walk func(m protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if !strings.HasPrefix(string(m.FullName()), "containerd.") {
			return // a well-known type, read as a whole
		}
		names := goNames(t, m)
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if _, ok := fields[string(f.FullName())]; ok {
				continue
			}
			fields[string(f.FullName())] = names[f.Name()]
			if f.IsMap() {
				f = f.MapValue()
			}
			if f.Message() != nil {
				walk(f.Message())
			}
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(file.Package()), "containerd.services.") {
			for i := range file.Services().Len() {
				methods := file.Services().Get(i).Methods()
				for j := range methods.Len() {
					walk(methods.Get(j).Input())
				}
			}
		}
		return true
	})
	for _, name := range anyTypes() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Fatal(err)
		}
		m, ok := d.(protoreflect.MessageDescriptor)
		if !ok {
			t.Fatalf("%s is a %T", name, d)
		}
		walk(m)
	}
	return fields
}

// goNames returns the names of a message's fields in the Go struct.
func goNames(t *testing.T, m protoreflect.MessageDescriptor) map[protoreflect.Name]string {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName())
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[protoreflect.Name]string)
	s := reflect.TypeOf(mt.New().Interface()).Elem()
	for i := range s.NumField() {
		for part := range strings.SplitSeq(s.Field(i).Tag.Get("protobuf"), ",") {
			if name, ok := strings.CutPrefix(part, "name="); ok {
				names[protoreflect.Name(name)] = s.Field(i).Name
			}
		}
	}
	return names
}

// TestEveryRequestField_IsHandled compares the table with the descriptors of the API module and with the
// source.
func TestEveryRequestField_IsHandled(t *testing.T) {
	fields := requestFields(t)
	if len(fields) < 250 {
		t.Fatalf("only %d fields are known", len(fields))
	}
	data, err := os.ReadFile(fieldsTable)
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		row := strings.Fields(line)
		if len(row) == 0 || row[0] == "#" {
			continue
		}
		goName, ok := fields[row[0]]
		switch {
		case !ok:
			t.Errorf("the table has %s, which no request has", row[0])
			continue
		case rows[row[0]]:
			t.Errorf("the table has %s twice", row[0])
		}
		rows[row[0]] = true
		if err := checkRow(row, goName); err != nil {
			t.Errorf("%s: %v", row[0], err)
		}
	}
	for _, f := range slices.Sorted(keysOf(fields)) {
		if !rows[f] {
			t.Errorf("the table has no row for %s (%s)", f, fields[f])
		}
	}
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// answered are the names of fields that may be the daemon's to set.
func answered() []string {
	return []string{"created_at", "updated_at", "size", "kind", "parent", "active", "system", "data", "mount", "mount_point", "mounted_at"}
}

// checkRow returns an error if what a row claims is not so.
func checkRow(row []string, goName string) error {
	name := row[0][strings.LastIndexByte(row[0], '.')+1:]
	switch {
	case len(row) == 2 && row[1] == "rejected":
		return nil
	case len(row) == 2 && row[1] == "output":
		if !slices.Contains(answered(), name) {
			return errors.New("it is not one that the daemon sets")
		}
		return nil
	case len(row) != 4 || row[1] != "honoured":
		return fmt.Errorf("malformed row %q", row)
	}
	bodies, err := functions("../../"+row[2], row[3])
	if err != nil {
		return err
	}
	camel := ""
	for part := range strings.SplitSeq(name, "_") {
		camel += strings.ToUpper(part[:1]) + part[1:]
	}
	reads := regexp.MustCompile(`\.Get(` + regexp.QuoteMeta(goName) + "|" + camel + `)\(`)
	if strings.HasPrefix(row[2], "shim/") { // which has messages without getters
		reads = regexp.MustCompile(`\.` + regexp.QuoteMeta(goName) + `\b`)
	}
	if !slices.ContainsFunc(bodies, reads.MatchString) {
		return fmt.Errorf("%s in %s does not read it", row[3], row[2])
	}
	return nil
}

// functions returns the source of each function of a name in a file.
func functions(path, name string) (bodies []string, err error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == name {
			bodies = append(bodies, string(source[set.Position(f.Pos()).Offset:set.Position(f.End()).Offset]))
		}
	}
	if len(bodies) == 0 {
		return nil, fmt.Errorf("%s has no function %s", path, name)
	}
	return bodies, nil
}
