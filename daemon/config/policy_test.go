package config

import (
	"testing"

	"github.com/cleatproject/cleat/daemon/policy"
)

func TestAccess_Users(t *testing.T) {
	c := Default()
	c.NamespaceAccess = map[string][]string{"1000": {"mine"}, "1001": {}, "1002": {"free"}}
	c.Policy = map[string]PolicyConfig{
		"1002": {Mode: "unrestricted"}, "1003": {Mounts: []string{"/srv"}, Flags: []string{"devices"}},
	}
	users, err := c.Access()
	if err != nil {
		t.Fatal(err)
	}
	if u := users[1000]; len(u.Namespaces) != 1 || u.Policy == nil || u.Policy.UID != 1000 || len(u.Policy.Flags) > 0 {
		t.Errorf("a listed user: %+v", u)
	}
	if u := users[1001]; u.Namespaces == nil || len(u.Namespaces) > 0 || u.Policy == nil {
		t.Errorf("a user of no namespace: %+v", u)
	}
	if u := users[1002]; len(u.Namespaces) != 1 || u.Policy != nil {
		t.Errorf("an unrestricted user: %+v", u)
	}
	if u := users[1003]; u.Namespaces != nil || u.Policy == nil || u.Policy.Flags[0] != policy.Devices || u.Policy.Mounts[0] != "/srv" {
		t.Errorf("a user with a policy alone: %+v", u)
	}
	if _, ok := users[1004]; ok {
		t.Error("a user that is not listed is limited")
	}
}

func TestAccess_InvalidPolicy_Fails(t *testing.T) {
	for name, p := range map[string]map[string]PolicyConfig{
		"root":         {"0": {}},
		"a name":       {"alice": {}},
		"mode":         {"1000": {Mode: "generous"}},
		"exceptions":   {"1000": {Mode: "unrestricted", Flags: []string{"devices"}}},
		"flag":         {"1000": {Flags: []string{"everything"}}},
		"relative":     {"1000": {Mounts: []string{"srv"}}},
		"is not clean": {"1000": {Mounts: []string{"/srv/../etc"}}},
	} {
		c := Default()
		c.Policy = p
		if _, err := c.Access(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
