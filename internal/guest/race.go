//go:build race

package guest

// raced reports that the race detector is on, for which the guest has not enough memory.
const raced = true
