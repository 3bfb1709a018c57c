package edit

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/rawjson"
)

func TestChanges(t *testing.T) {
	for text, want := range changedTo() {
		config := rawjson.Object{
			"Env": json.RawMessage(`["PATH=/bin","P=p"]`), "WorkingDir": json.RawMessage(`"/w"`), "Cmd": json.RawMessage(`["old"]`),
			"Labels": json.RawMessage(`null`), "Healthcheck": json.RawMessage(`{"Test":["x"]}`),
		}
		c, err := ParseChange(text)
		if err == nil {
			err = applyChanges(config, []Change{c})
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := make(map[string]any)
		raw, err := config.Encode()
		if err == nil {
			err = json.Unmarshal(raw, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got["Healthcheck"] == nil {
			t.Errorf("%s: lost unknown members: %s", text, raw)
		}
		delete(got, "Healthcheck")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s\nwant %v", text, raw, want)
		}
	}
}

// changedTo returns the configuration after each instruction.
func changedTo() map[string]map[string]any {
	type list = []any
	with := func(member string, v any, more ...any) map[string]any {
		m := map[string]any{"Env": list{"PATH=/bin", "P=p"}, "WorkingDir": "/w", "Cmd": list{"old"}, "Labels": nil}
		m[member] = v
		if len(more) > 0 {
			delete(m, "Cmd")
		}
		return m
	}
	set := map[string]any{}
	return map[string]map[string]any{
		`ENV A=1 B="two words" C='$P'`:     with("Env", list{"PATH=/bin", "P=p", "A=1", "B=two words", "C=$P"}),
		`env A two words`:                  with("Env", list{"PATH=/bin", "P=p", "A=two words"}),
		`CMD ["a","b"]`:                    with("Cmd", list{"a", "b"}),
		`CMD echo $HOME`:                   with("Cmd", list{"/bin/sh", "-c", "echo $HOME"}),
		`LABEL a.b="c d" e=`:               with("Labels", map[string]any{"a.b": "c d", "e": ""}),
		`EXPOSE 80 53/udp 8000-8010/TCP`:   with("ExposedPorts", map[string]any{"80/tcp": set, "53/udp": set, "8000-8010/tcp": set}),
		`VOLUME /a /b`:                     with("Volumes", map[string]any{"/a": set, "/b": set}),
		`VOLUME ["/a b"]`:                  with("Volumes", map[string]any{"/a b": set}),
		`WORKDIR sub/../x`:                 with("WorkingDir", "/w/x"),
		`USER web:staff`:                   with("User", "web:staff"),
		`STOPSIGNAL SIGRTMIN+3`:            with("StopSignal", "SIGRTMIN+3"),
		`STOPSIGNAL 9`:                     with("StopSignal", "9"),
		`ENTRYPOINT []`:                    with("Labels", nil, "and no Cmd"),
		`ENTRYPOINT ["/x"]`:                with("Entrypoint", list{"/x"}, "and no Cmd"),
		`ENV PATH=$PATH:/x:${P}y Q=\$P-$1`: with("Env", list{"PATH=/bin:/x:py", "P=p", "Q=$P-$1"}),
	}
}

func TestParseChange_RefusesInvalidOnes(t *testing.T) {
	for _, text := range []string{
		"", "RUN x", "CMD", "CMD [", `CMD [1]`, "ENV A", "ENV A=1 B", "ENV =x", `ENV A="x`, `LABEL a\`, "ENV A=${", "ENV A=${1}", "EXPOSE x",
		"EXPOSE 0", "EXPOSE 65536", "EXPOSE 9-8", "EXPOSE 80/icmp", "VOLUME rel", `VOLUME {}`, "USER a b", "WORKDIR a b", "STOPSIGNAL",
		"STOPSIGNAL 0", "STOPSIGNAL 65", "STOPSIGNAL sig term", "STOPSIGNAL -1", "ENV A=1\nRUN x", "ENV A=\x00",
	} {
		c, err := ParseChange(text)
		if err == nil {
			err = applyChanges(rawjson.Object{}, []Change{c})
		}
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzChange(f *testing.F) {
	f.Add(`ENV A="b c" D=${E}`)
	f.Add(`LABEL 'a'=b\`)
	f.Add(`EXPOSE 1-2/udp`)
	f.Fuzz(func(t *testing.T, text string) {
		config := rawjson.Object{"Env": json.RawMessage(`["E=e"]`)}
		c, err := ParseChange(text)
		if err == nil {
			err = applyChanges(config, []Change{c})
		}
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Fatal(err)
		}
		if _, err := config.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
