// Command protoc-gen-cleat is the protoc plug-in that generates the messages under proto.
//
// It is gogo/protobuf's generator with marshal, unmarshal and size methods turned on and
// It is gogo/protobuf's generator with marshal, unmarshal and size methods turned on and
// everything that needs reflection turned off. The code for gogo's global
// registry (init functions, file descriptors) is removed from its output: the messages of a shim
// are not registered, and cost their process no memory.
//
// With the parameter records=true the messages are those of a file format: they keep fields that
// they do not know, marshal maps in the order of their keys, and have a constant for the number
// of each field, such as ContainerImageField.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/gogo/protobuf/gogoproto"
	descriptor "github.com/gogo/protobuf/protoc-gen-gogo/descriptor"
	"github.com/gogo/protobuf/protoc-gen-gogo/generator"
	plugin "github.com/gogo/protobuf/protoc-gen-gogo/plugin"
	"github.com/gogo/protobuf/vanity"
	"github.com/gogo/protobuf/vanity/command"
)

func main() {
	req := command.Read()
	files := req.GetProtoFile()
	records := slices.Contains(strings.Split(req.GetParameter(), ","), "records=true")
	if records {
		vanity.ForEachFile(generated(req), vanity.TurnOnStable_MarshalerAll)
		vanity.ForEachFile(generated(req), vanity.SetBoolFileOption(gogoproto.E_GoprotoUnrecognizedAll, true))
	}
	for _, opt := range []func(*descriptor.FileDescriptorProto){
		vanity.TurnOnMarshalerAll,
		vanity.TurnOnSizerAll,
		vanity.TurnOnUnmarshalerAll,
		vanity.TurnOffGoGettersAll,
		vanity.TurnOffGoStringerAll,
		vanity.TurnOffGoUnrecognizedAll,
		vanity.TurnOffGoUnkeyedAll,
		vanity.TurnOffGoSizecacheAll,
		vanity.TurnOffGoEnumStringerAll,
		vanity.TurnOnEnumStringerAll,
	} {
		vanity.ForEachFile(files, opt)
	}
	resp := command.Generate(req)
	for _, f := range resp.GetFile() {
		src := f.GetContent()
		if records {
			src += numbers(f.GetName(), generated(req))
		}
		pruned, err := prune(f.GetName(), src)
		if err != nil {
			fmt.Fprintln(os.Stderr, "protoc-gen-cleat:", err)
			os.Exit(1)
		}
		f.Content = &pruned
	}
	command.Write(resp)
}

// generated returns the files that a request asks for, as opposed to those that they import.
func generated(req *plugin.CodeGeneratorRequest) (files []*descriptor.FileDescriptorProto) {
	for _, f := range req.GetProtoFile() {
		if slices.Contains(req.GetFileToGenerate(), f.GetName()) {
			files = append(files, f)
		}
	}
	return files
}

// numbers declares the field numbers of the messages of a generated file.
func numbers(name string, files []*descriptor.FileDescriptorProto) string {
	i := slices.IndexFunc(files, func(f *descriptor.FileDescriptorProto) bool {
		return strings.TrimSuffix(path.Base(f.GetName()), ".proto")+".pb.go" == path.Base(name)
	})
	var out strings.Builder
	for _, m := range files[i].GetMessageType() {
		fmt.Fprintf(&out, "\n// The numbers of the fields of %s.\nconst (\n", generator.CamelCase(m.GetName()))
		for _, f := range m.GetField() {
			fmt.Fprintf(&out, "\t%s%sField = %d\n", generator.CamelCase(m.GetName()), generator.CamelCase(f.GetName()), f.GetNumber())
		}
		out.WriteString(")\n")
	}
	return out.String()
}

// prune removes registration and descriptors from a generated file.
func prune(name, src string) (string, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments)
	if err != nil {
		return "", fmt.Errorf("parse generated %s: %w", name, err)
	}
	var cuts [][2]int
	cut := func(n ast.Node, doc *ast.CommentGroup) {
		from := n.Pos()
		if doc != nil {
			from = doc.Pos()
		}
		cuts = append(cuts, [2]int{fset.Position(from).Offset, fset.Position(n.End()).Offset})
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if unwantedFunc(d.Name.Name) {
				cut(d, d.Doc)
			}
		case *ast.GenDecl:
			if unwantedDecl(d) {
				cut(d, d.Doc)
			}
		}
	}
	var out bytes.Buffer
	at := 0
	for _, c := range cuts {
		out.WriteString(src[at:c[0]])
		at = c[1]
	}
	out.WriteString(src[at:])
	text := out.String()
	if !strings.Contains(strings.Replace(text, "proto \"github.com/gogo/protobuf/proto\"", "", 1), "proto.") {
		text = strings.Replace(text, "proto \"github.com/gogo/protobuf/proto\"\n", "\n", 1)
	}
	formatted, err := format.Source([]byte(text))
	if err != nil {
		return "", fmt.Errorf("format pruned %s: %w", name, err)
	}
	return string(formatted), nil
}

func unwantedFunc(name string) bool {
	return name == "init" || name == "Descriptor" || name == "EnumDescriptor" || strings.HasPrefix(name, "XXX_")
}

// unwantedDecl reports registration data, and the generator's guards against unused imports.
func unwantedDecl(d *ast.GenDecl) bool {
	if d.Tok != token.VAR && d.Tok != token.CONST {
		return false
	}
	for _, s := range d.Specs {
		v, ok := s.(*ast.ValueSpec)
		if !ok {
			return false
		}
		for _, n := range v.Names {
			if strings.HasPrefix(n.Name, "fileDescriptor_") || strings.HasPrefix(n.Name, "xxx_messageInfo_") {
				return true
			}
			if n.Name == "_" && len(v.Values) == 1 && fromProto(v.Values[0]) {
				return true
			}
		}
	}
	return false
}

func fromProto(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "proto"
}
