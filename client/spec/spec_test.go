package spec_test

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client/spec"
)

func mountsOf(m ...specs.Mount) []specs.Mount { return m }

func TestGenerate_Arguments(t *testing.T) {
	image := spec.Image{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	tests := map[string]struct {
		image spec.Image
		opts  spec.Options
		want  []string
	}{
		"of the image":           {image, spec.Options{}, []string{"entry", "cmd"}},
		"behind the entrypoint":  {image, spec.Options{Args: []string{"a", "b"}}, []string{"entry", "a", "b"}},
		"another entrypoint":     {image, spec.Options{Entrypoint: []string{"other"}}, []string{"other"}},
		"entrypoint with args":   {image, spec.Options{Entrypoint: []string{"o"}, Args: []string{"a"}}, []string{"o", "a"}},
		"no entrypoint":          {image, spec.Options{Entrypoint: []string{}, Args: []string{"a"}}, []string{"a"}},
		"image without anything": {spec.Image{}, spec.Options{Args: []string{"a"}}, []string{"a"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := spec.Generate(tt.image, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Process.Args, tt.want) {
				t.Errorf("args %q, want %q", s.Process.Args, tt.want)
			}
		})
	}
}

func TestMergeEnv(t *testing.T) {
	for name, c := range map[string]struct{ base, over, want []string }{
		"replaced, removed, added": {[]string{"A=1", "B=2", "C=3"}, []string{"B=x=y", "A", "D=4", "E"}, []string{"B=x=y", "C=3", "D=4"}},
		"the last one wins":        {[]string{"A=1", "B=2", "A=3"}, []string{"B=4", "B=5"}, []string{"A=3", "B=5"}},
		"removed wholly":           {[]string{"A=1", "B=2", "A=3"}, []string{"A"}, []string{"B=2"}},
		"removed, and added again": {[]string{"A=1", "B=2"}, []string{"A", "A=3"}, []string{"B=2", "A=3"}},
		"a name that begins alike": {[]string{"AB=1", "A=2"}, []string{"A=", "ABC=3"}, []string{"AB=1", "A=", "ABC=3"}},
	} {
		if got := spec.MergeEnv(c.base, c.over); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestGenerate_RefusesInvalidRequests(t *testing.T) {
	args := []string{"x"}
	for name, o := range map[string]spec.Options{
		"no command":         {},
		"relative directory": {Args: args, WorkDir: "a"},
		"unknown network":    {Args: args, Network: "bridge"},
		"relative namespace": {Args: args, Network: "ns:run/x"},
		"negative cpus":      {Args: args, Limits: spec.Limits{CPUs: -1}},
		"too little cpu":     {Args: args, Limits: spec.Limits{CPUs: 0.001}},
		"too many cpus":      {Args: args, Limits: spec.Limits{CPUs: 1e300}},
		"no number of cpus":  {Args: args, Limits: spec.Limits{CPUs: math.NaN()}},
		"unknown capability": {Args: args, CapAdd: []string{"SYS_EVERYTHING"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := spec.Generate(spec.Image{}, o); !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v, want invalid argument", err)
			}
		})
	}
}

func TestParseImage_IgnoresLabels(t *testing.T) {
	got, err := spec.ParseImage([]byte(`{"architecture":"amd64","config":{"User":"www","Cmd":["a"],"Labels":{"x":"y"},
		"StopSignal":"SIGQUIT","Volumes":{"/data":{}}}}`))
	want := spec.Image{User: "www", Cmd: []string{"a"}, StopSignal: "SIGQUIT", Volumes: map[string]struct{}{"/data": {}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := spec.ParseImage([]byte("no")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want invalid argument", err)
	}
}

func TestParseMount(t *testing.T) {
	tests := map[string]struct {
		text string
		want specs.Mount
		bad  bool
	}{
		"bind":        {text: "type=bind,src=/a,dst=/b/", want: specs.Mount{Type: "bind", Source: "/a", Destination: "/b", Options: []string{"rbind", "rprivate"}}},
		"read-only":   {text: "src=/a,target=/b,readonly", want: specs.Mount{Type: "bind", Source: "/a", Destination: "/b", Options: []string{"rbind", "rprivate", "ro"}}},
		"writable":    {text: "source=/a,destination=/b,ro=false", want: specs.Mount{Type: "bind", Source: "/a", Destination: "/b", Options: []string{"rbind", "rprivate"}}},
		"propagation": {text: "src=/a,dst=/b,bind-propagation=rshared", want: specs.Mount{Type: "bind", Source: "/a", Destination: "/b", Options: []string{"rbind", "rshared"}}},
		"tmpfs":       {text: "type=tmpfs,dst=/b,tmpfs-size=1m", want: specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/b", Options: []string{"nosuid", "nodev", "size=1m"}}},
		"unknown key": {text: "type=bind,src=/a,dst=/b,colour=red", bad: true},
		"no source":   {text: "type=bind,dst=/b", bad: true},
		"over root":   {text: "src=/a,dst=/..", bad: true},
		"relative":    {text: "src=a,dst=/b", bad: true},
		"bad type":    {text: "type=overlay,src=/a,dst=/b", bad: true},
		"bad option":  {text: "type=bind,src=/a,dst=/b,options=colour", bad: true},
		"bad flag":    {text: "src=/a,dst=/b,ro=perhaps", bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := spec.ParseMount(tt.text)
			if tt.bad != errdefs.IsInvalidArgument(err) || !tt.bad && !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseVolume(t *testing.T) {
	got, err := spec.ParseVolume("/a:/b:ro,rslave")
	want := specs.Mount{Type: "bind", Source: "/a", Destination: "/b", Options: []string{"rbind", "ro", "rslave"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"", "/a", "a:/b", "/a:b", ":/b", "/a:/b:bogus", "/a:/b:ro,z", "/a:/b:"} {
		if _, err := spec.ParseVolume(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, want invalid argument", text, err)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "1b": 1, "64m": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20, "1.5g": 3 << 29, "2t": 2 << 40, "3k": 3 << 10,
	} {
		if got, err := spec.ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "-1", "1x", "1mm", "1ibm", "99999999999999t", "nan", "1 m m", "0x10"} {
		if got, err := spec.ParseBytes(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %d, %v; want invalid argument", text, got, err)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add("type=bind,src=/a,dst=/b,ro")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := spec.ParseMount(text); err == nil && (m.Destination == "/" || m.Destination == "" || m.Destination[0] != '/') {
			t.Errorf("%q gives destination %q", text, m.Destination)
		}
	})
}

func FuzzParseBytes(f *testing.F) {
	f.Add("1.5g")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := spec.ParseBytes(text); err == nil && n < 0 {
			t.Errorf("%q gives %d", text, n)
		}
	})
}

func TestParseImage_FieldsThatDockerTolerates(t *testing.T) {
	for config, want := range map[string]spec.Image{
		`{}`:                                {},
		`{"config":null}`:                   {},
		`{"config":[]}`:                     {},
		`{"config":"x"}`:                    {},
		`{"config":{"Entrypoint":[""]}}`:    {},
		`{"config":{"Entrypoint":["",""]}}`: {Entrypoint: []string{"", ""}},
		`{"config":{"Entrypoint":"/bin/sh","Cmd":"-l"}}`:                                                        {Entrypoint: []string{"/bin/sh"}, Cmd: []string{"-l"}},
		`{"config":{"Entrypoint":"","Cmd":""}}`:                                                                 {},
		`{"config":{"Entrypoint":null,"Cmd":null,"Env":null,"Volumes":null,"ExposedPorts":null,"Labels":null}}`: {},
		`{"config":{"Entrypoint":{},"Cmd":7,"User":"www"}}`:                                                     {Cmd: []string{"7"}, User: "www"},
		`{"config":{"User":1000,"StopSignal":15}}`:                                                              {User: "1000", StopSignal: "15"},
		`{"config":{"User":null,"WorkingDir":null,"StopSignal":null}}`:                                          {},
		`{"config":{"Volumes":["/a"],"Env":"A=b"}}`:                                                             {Volumes: map[string]struct{}{"/a": {}}, Env: []string{"A=b"}},
		`{"config":{"Volumes":{"/a":null}}}`:                                                                    {Volumes: map[string]struct{}{"/a": {}}},
		`{"created":"yesterday","history":7,"config":{"Cmd":["a"]}}`:                                            {Cmd: []string{"a"}},
	} {
		if got, err := spec.ParseImage([]byte(config)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", config, got, err, want)
		}
	}
	s, err := spec.Generate(spec.Image{Cmd: []string{"a"}, WorkingDir: "srv/app"}, spec.Options{})
	if err != nil || s.Process.Cwd != "/srv/app" {
		t.Errorf("%+v, %v", s, err)
	}
}
