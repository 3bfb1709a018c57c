package metadata

// Marks of a node. One that is marked flat is kept together with its parts (a snapshot with its
// parents), but not with what its labels refer to.
const (
	unmarked uint8 = iota
	markedFlat
	markedFull
)

// graph holds the objects of one namespace and their references. Namespaces do not refer to each
// other, so that each is collected separately.
type graph struct {
	ns    string
	index map[name]int32
	nodes []node
	edges []edge
	stack []int32
	// explain makes the graph keep in via the reason of each edge.
	explain bool
	via     []string
}

// node is an object, or, if exists is not set, a name that an object refers to.
type node struct {
	name
	// first is the head of the list of edges, -1 for none.
	first  int32
	exists bool
	root   bool
	// flat is set on a lease whose resources are kept without what their labels refer to.
	flat bool
	mark uint8
}

// edge leads to an object that is kept as long as the edge's node is.
type edge struct {
	to, next int32
	// label distinguishes an edge from a label from one of an object's own nature.
	label bool
}

// newGraph returns an empty graph with room for so many nodes.
func newGraph(ns string, size int) *graph {
	return &graph{ns: ns, index: make(map[name]int32, size), nodes: make([]node, 0, size), edges: make([]edge, 0, size)}
}

// node returns the number of the node called kind, set, key, and creates it if it is new.
func (g *graph) node(kind Kind, set string, key []byte) int32 {
	if i, ok := g.index[name{kind: kind, set: set, key: string(key)}]; ok {
		return i
	}
	return g.add(name{kind: kind, set: set, key: string(key)})
}

func (g *graph) add(n name) int32 {
	i := int32(len(g.nodes))
	g.nodes = append(g.nodes, node{name: n, first: -1})
	g.index[n] = i
	return i
}

// link adds an edge.
func (g *graph) link(from, to int32, label bool, via func() string) {
	if from == to {
		return
	}
	g.edges = append(g.edges, edge{to: to, next: g.nodes[from].first, label: label})
	g.nodes[from].first = int32(len(g.edges) - 1)
	if g.explain {
		g.via = append(g.via, via())
	}
}

// markRoots marks all that the roots keep.
func (g *graph) markRoots() {
	for i := range g.nodes {
		if g.nodes[i].root {
			g.mark(int32(i), markedFull)
		}
	}
}

// mark marks a node and what it keeps. A name without an object keeps nothing.
func (g *graph) mark(i int32, level uint8) {
	g.push(i, level)
	for len(g.stack) > 0 {
		n := &g.nodes[g.stack[len(g.stack)-1]]
		g.stack = g.stack[:len(g.stack)-1]
		if !n.exists {
			continue
		}
		for e := n.first; e >= 0; e = g.edges[e].next {
			if l := n.passes(g.edges[e], n.mark); l != unmarked {
				g.push(g.edges[e].to, l)
			}
		}
	}
}

// passes returns the mark that a node marked with level gives to the end of an edge.
func (n *node) passes(e edge, level uint8) uint8 {
	switch {
	case e.label && level == markedFlat:
		return unmarked
	case !e.label && n.flat:
		return markedFlat
	default:
		return level
	}
}

func (g *graph) push(i int32, level uint8) {
	if g.nodes[i].mark < level {
		g.nodes[i].mark = level
		g.stack = append(g.stack, i)
	}
}

// garbage returns the unmarked nodes, each before all that it refers to, so that the rest is
// consistent at any point of a removal in this order. Those from whole on refer to each other in
// circles, or are referred to from circles: they are removed together.
func (g *graph) garbage() (ordered []int32, whole int) {
	var all []int32
	for i := range g.nodes {
		if g.collectable(int32(i)) {
			all = append(all, int32(i))
		}
	}
	if len(all) == 0 {
		return nil, 0
	}
	users := make(map[int32]int32, len(all)) // number of references to it, -1 once it is in order
	for _, i := range all {
		for e := g.nodes[i].first; e >= 0; e = g.edges[e].next {
			if g.collectable(g.edges[e].to) {
				users[g.edges[e].to]++
			}
		}
	}
	ordered = make([]int32, 0, len(all))
	for _, i := range all {
		if users[i] == 0 {
			ordered = append(ordered, i)
			users[i] = -1
		}
	}
	for at := 0; at < len(ordered); at++ {
		for e := g.nodes[ordered[at]].first; e >= 0; e = g.edges[e].next {
			to := g.edges[e].to
			if !g.collectable(to) {
				continue
			}
			if users[to]--; users[to] == 0 {
				ordered = append(ordered, to)
				users[to] = -1
			}
		}
	}
	if whole = len(ordered); whole < len(all) {
		for _, i := range all {
			if users[i] >= 0 {
				ordered = append(ordered, i)
			}
		}
	}
	return ordered, whole
}

func (g *graph) collectable(i int32) bool {
	return g.nodes[i].exists && g.nodes[i].mark == unmarked
}
