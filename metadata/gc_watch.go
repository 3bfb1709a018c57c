package metadata

// Changes counts what updates did.
type Changes struct {
	// Mutations are the updates that wrote something, Deletions those that deleted.
	Mutations, Deletions int
}

func changesOf(tx *Tx) Changes {
	var c Changes
	if tx.written {
		c.Mutations = 1
	}
	if tx.deleted {
		c.Deletions = 1
	}
	return c
}

// Watch has fn called after each commit with what it changed, but for the collector's own.
// It must return at once. One watcher is the most; a second takes its place.
func (db *DB) Watch(fn func(Changes)) { db.changed.Store(&fn) }

// announce tells the watcher of a batch of updates.
func (db *DB) announce(batch []*request) {
	fn := db.changed.Load()
	if fn == nil {
		return
	}
	var sum Changes
	for _, u := range batch {
		if u.err == nil {
			sum.Mutations += u.changes.Mutations
			sum.Deletions += u.changes.Deletions
		}
	}
	if sum != (Changes{}) {
		(*fn)(sum)
	}
}
