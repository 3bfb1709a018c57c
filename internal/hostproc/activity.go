package hostproc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Activity measures the work of a process and its children up to a moment.
type Activity struct {
	// used is the time that its threads ran or waited for a processor, in nanoseconds.
	used uint64
	// wants reports that a thread was running, waited for a processor, or for a disk.
	wants bool
}

// ActivityOf samples a process and its children, one level down: a shim waits for the OCI runtime. A
// process that does not exist has done nothing.
func ActivityOf(pid int) Activity {
	var a Activity
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil || pid <= 0 {
		return a
	}
	for _, dir := range threads {
		a.thread(dir)
		children, err := os.ReadFile(dir + "/children") // if the kernel has it
		if err != nil {
			continue
		}
		for child := range bytes.FieldsSeq(children) {
			of, err := filepath.Glob("/proc/" + string(child) + "/task/[0-9]*")
			if err != nil {
				continue
			}
			for _, dir := range of {
				a.thread(dir)
			}
		}
	}
	return a
}

// thread adds a thread; one that has ended adds nothing.
func (a *Activity) thread(dir string) {
	if data, err := os.ReadFile(dir + "/schedstat"); err == nil { // time run, time waited, both in ns
		if f := strings.Fields(string(data)); len(f) >= 2 {
			for _, text := range f[:2] {
				n, err := strconv.ParseUint(text, 10, 64)
				if err == nil {
					a.used += n
				}
			}
		}
	}
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return
	}
	if i := bytes.LastIndexByte(data, ')'); i >= 0 && len(data) > i+2 {
		a.wants = a.wants || data[i+2] == 'R' || data[i+2] == 'D' // see proc_pid_stat(5)
	}
}

// Busy reports whether the process, between the earlier sample and this one, worked or waited for
// the host: then a missing answer in that time does not mean that it hangs.
func (a Activity) Busy(earlier Activity) bool { return a.wants || a.used > earlier.used }
