package metadata

// Changes counts the effects of updates.
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

// Watch has fn called after each commit with its changes, except for the collector's own. It must
// return at once. There is at most one watcher; a second replaces it.
func (db *DB) Watch(fn func(Changes)) { db.changed.Store(&fn) }

// notifyWatcher notifies the watcher of a batch of updates.
func (db *DB) notifyWatcher(batch []*request) {
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
