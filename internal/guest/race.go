//go:build race

package guest

// raced says that this program looks for races, for which there is no room in the guest.
const raced = true
