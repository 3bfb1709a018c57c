package main

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// fileNames reports Go files whose names are not words in lower case with underscores between them. Two words are
// recognised by a declaration of the package that writes them as two: logProcess belongs to shim/stdio/log_process.go.
func fileNames(p *project) ([]string, error) {
	form := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*\.go$`)
	declared := make(map[string]map[string]string) // by folder
	for _, c := range p.files {
		if declared[c.folder] == nil {
			declared[c.folder] = make(map[string]string)
		}
		for _, name := range declarations(c.file) {
			if snake := snakeCase(name); strings.Contains(snake, "_") {
				declared[c.folder][strings.ReplaceAll(snake, "_", "")] = snake
			}
		}
	}
	var findings []string
	for _, c := range p.files {
		if !form.MatchString(c.name) {
			findings = append(findings, c.path()+": want words in lower case, with underscores between them")
		}
		base := strings.TrimSuffix(strings.TrimSuffix(c.name, ".go"), "_test")
		if snake := declared[c.folder][base]; snake != "" {
			findings = append(findings, fmt.Sprintf("%s: want %s%s", c.path(), snake, strings.TrimPrefix(c.name, base)))
		}
	}
	return findings, nil
}

// declarations returns the names of the types and functions of a file.
func declarations(file *ast.File) []string {
	var names []string
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if t, ok := s.(*ast.TypeSpec); ok {
					names = append(names, t.Name.Name)
				}
			}
		}
	}
	return names
}

// snakeCase separates the words of an identifier. Capitals in a row are one word, as in readIDs.
func snakeCase(name string) string {
	name = regexp.MustCompile(`([a-z0-9])([A-Z])`).ReplaceAllString(name, "${1}_$2")
	return strings.ToLower(regexp.MustCompile(`([A-Z])([A-Z][a-z]{2})`).ReplaceAllString(name, "${1}_$2"))
}
