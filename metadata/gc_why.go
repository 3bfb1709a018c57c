package metadata

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// Link is one object of a chain of references.
type Link struct {
	Object
	// Via is how the previous object refers to this one: "target", "snapshot", "parent", "lease",
	// "expected", or "label" and the label's key. On the first it is the reason that it is kept:
	// "root", or "held" by an active call.
	Via string
}

// Why returns a shortest chain of references that keeps an object, from a root to the object; none
// if nothing keeps it, so that the next collection deletes it. It returns ErrNotFound if there is
// no such object.
func (db *DB) Why(ctx context.Context, o Object) ([]Link, error) {
	g := newGraph(o.Namespace, 0)
	g.explain = true
	err := db.View(ctx, func(tx *Tx) error { return g.scan(ctx, tx, tx.time()) })
	if err != nil {
		return nil, fmt.Errorf("find references: %w", err)
	}
	to, ok := g.index[o.name()]
	if !ok || !g.nodes[to].exists {
		return nil, fmt.Errorf("%s in namespace %q: %w", o, o.Namespace, errdefs.ErrNotFound)
	}
	var roots, held []int32
	for i := range g.nodes {
		if g.nodes[i].root {
			roots = append(roots, int32(i))
		}
	}
	if chain := g.chain(roots, to, "root"); chain != nil {
		return chain, nil
	}
	db.holds.mu.Lock()
	for h := range db.holds.count {
		if i, ok := g.index[h.name()]; ok && h.Namespace == g.ns {
			held = append(held, i)
		}
	}
	db.holds.mu.Unlock()
	slices.Sort(held)
	return g.chain(held, to, "held"), nil
}

// visited is a node as reached with a mark: flat and full are two nodes of the search.
type visited struct {
	node  int32
	level uint8
}

type reached struct {
	from visited
	edge int32 // -1 for the start of a search
}

// chain searches, breadth first, for a path to a node.
func (g *graph) chain(from []int32, to int32, why string) []Link {
	seen := make(map[visited]reached)
	var queue []visited
	visit := func(v, from visited, edge int32) {
		if _, ok := seen[v]; !ok {
			seen[v] = reached{from, edge}
			queue = append(queue, v)
		}
	}
	for _, i := range from {
		visit(visited{i, markedFull}, visited{}, -1)
	}
	for at := 0; at < len(queue); at++ {
		v := queue[at]
		n := &g.nodes[v.node]
		if v.node == to {
			return g.links(seen, v, why)
		}
		if !n.exists {
			continue
		}
		for e := n.first; e >= 0; e = g.edges[e].next {
			if l := n.passes(g.edges[e], v.level); l != unmarked {
				visit(visited{g.edges[e].to, l}, v, e)
			}
		}
	}
	return nil
}

// links follows the path back.
func (g *graph) links(seen map[visited]reached, v visited, why string) []Link {
	var out []Link
	for {
		r := seen[v]
		l := Link{Object: g.nodes[v.node].object(g.ns), Via: why}
		if r.edge >= 0 {
			l.Via = g.via[r.edge]
		}
		out = append(out, l)
		if r.edge < 0 {
			slices.Reverse(out)
			return out
		}
		v = r.from
	}
}
