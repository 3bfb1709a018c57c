package cgroup

import (
	"path/filepath"
	"strings"

	v1 "github.com/cleatproject/cleat/proto/cgroups/v1"
)

// userHZ is the unit of cpuacct.stat (sysconf(_SC_CLK_TCK) is 100 on every Linux port of Go).
const userHZ = 100

// statsV1 reads one directory per controller.
func statsV1(dirs map[string]string) *v1.Metrics {
	dir := func(controller string) files { return files(dirs[controller]) }
	m := &v1.Metrics{}
	if d := dir("pids"); d != "" {
		m.Pids = &v1.PidsStat{Current: d.number("pids.current"), Limit: d.number("pids.max")}
	}
	m.Cpu = cpuV1(dir("cpuacct"), dir("cpu"))
	if d := dir("memory"); d != "" {
		m.Memory = memoryV1(d)
		oom := d.keyed("memory.oom_control")
		m.MemoryOomControl = &v1.MemoryOomControl{
			OomKillDisable: oom["oom_kill_disable"], UnderOom: oom["under_oom"], OomKill: oom["oom_kill"],
		}
	}
	if d := dir("blkio"); d != "" {
		m.Blkio = blkioV1(d)
	}
	m.Hugetlb = hugetlbV1(dir("hugetlb"))
	if d := dir("rdma"); d != "" {
		m.Rdma = &v1.RdmaStat{Current: rdmaV1(d.text("rdma.current")), Limit: rdmaV1(d.text("rdma.max"))}
	}
	return m
}

func cpuV1(acct, cpu files) *v1.CPUStat {
	if acct == "" && cpu == "" {
		return nil
	}
	const tick = 1e9 / userHZ
	ticks := acct.keyed("cpuacct.stat")
	usage := &v1.CPUUsage{
		Total: acct.number("cpuacct.usage"), Kernel: ticks["system"] * tick, User: ticks["user"] * tick,
	}
	for field := range strings.FieldsSeq(acct.text("cpuacct.usage_percpu")) {
		usage.PerCpu = append(usage.PerCpu, number(field))
	}
	t := cpu.keyed("cpu.stat")
	return &v1.CPUStat{Usage: usage, Throttling: &v1.Throttle{
		Periods: t["nr_periods"], ThrottledPeriods: t["nr_throttled"], ThrottledTime: t["throttled_time"],
	}}
}

func memoryV1(d files) *v1.MemoryStat {
	s := d.keyed("memory.stat")
	entry := func(module string) *v1.MemoryEntry {
		prefix := "memory." + module
		return &v1.MemoryEntry{
			Usage: d.number(prefix + "usage_in_bytes"), Max: d.number(prefix + "max_usage_in_bytes"),
			Limit: d.number(prefix + "limit_in_bytes"), Failcnt: d.number(prefix + "failcnt"),
		}
	}
	return &v1.MemoryStat{
		Cache: s["cache"], Rss: s["rss"], RssHuge: s["rss_huge"], MappedFile: s["mapped_file"],
		Dirty: s["dirty"], Writeback: s["writeback"],
		PgPgIn: s["pgpgin"], PgPgOut: s["pgpgout"], PgFault: s["pgfault"], PgMajFault: s["pgmajfault"],
		InactiveAnon: s["inactive_anon"], ActiveAnon: s["active_anon"],
		InactiveFile: s["inactive_file"], ActiveFile: s["active_file"], Unevictable: s["unevictable"],
		HierarchicalMemoryLimit: s["hierarchical_memory_limit"], HierarchicalSwapLimit: s["hierarchical_memsw_limit"],
		TotalCache: s["total_cache"], TotalRss: s["total_rss"], TotalRssHuge: s["total_rss_huge"],
		TotalMappedFile: s["total_mapped_file"], TotalDirty: s["total_dirty"], TotalWriteback: s["total_writeback"],
		TotalPgPgIn: s["total_pgpgin"], TotalPgPgOut: s["total_pgpgout"],
		TotalPgFault: s["total_pgfault"], TotalPgMajFault: s["total_pgmajfault"],
		TotalInactiveAnon: s["total_inactive_anon"], TotalActiveAnon: s["total_active_anon"],
		TotalInactiveFile: s["total_inactive_file"], TotalActiveFile: s["total_active_file"],
		TotalUnevictable: s["total_unevictable"],
		Usage:            entry(""), Swap: entry("memsw."), Kernel: entry("kmem."), KernelTcp: entry("kmem.tcp."),
	}
}

// blkioV1 prefers the recursive files of the scheduler and falls back to those of throttling,
// which every scheduler has.
func blkioV1(d files) *v1.BlkIOStat {
	first := func(names ...string) []*v1.BlkIOEntry {
		for _, n := range names {
			if e := blkioEntries(d.text("blkio." + n)); len(e) > 0 {
				return e
			}
		}
		return nil
	}
	return &v1.BlkIOStat{
		IoServiceBytesRecursive: first("bfq.io_service_bytes_recursive", "io_service_bytes_recursive", "throttle.io_service_bytes_recursive", "throttle.io_service_bytes"),
		IoServicedRecursive:     first("bfq.io_serviced_recursive", "io_serviced_recursive", "throttle.io_serviced_recursive", "throttle.io_serviced"),
		IoQueuedRecursive:       first("bfq.io_queued_recursive", "io_queued_recursive"),
		IoServiceTimeRecursive:  first("bfq.io_service_time_recursive", "io_service_time_recursive"),
		IoWaitTimeRecursive:     first("bfq.io_wait_time_recursive", "io_wait_time_recursive"),
		IoMergedRecursive:       first("bfq.io_merged_recursive", "io_merged_recursive"),
		IoTimeRecursive:         first("bfq.time_recursive", "time_recursive"),
		SectorsRecursive:        first("bfq.sectors_recursive", "sectors_recursive"),
	}
}

// blkioEntries reads lines "MAJOR:MINOR [OP] VALUE"; the total at the end has no device.
func blkioEntries(text string) []*v1.BlkIOEntry {
	var out []*v1.BlkIOEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		e := &v1.BlkIOEntry{Major: major, Minor: minor, Value: number(f[len(f)-1]), Device: deviceName(f[0])}
		if len(f) == 3 {
			e.Op = f[1]
		}
		out = append(out, e)
	}
	return out
}

// deviceName is the path below /dev of a block device, or "".
func deviceName(number string) string {
	target, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		return ""
	}
	return "/dev/" + filepath.Base(target)
}

func hugetlbV1(d files) []*v1.HugetlbStat {
	var out []*v1.HugetlbStat
	for _, size := range hugePageSizes(d, ".usage_in_bytes") {
		prefix := "hugetlb." + size
		out = append(out, &v1.HugetlbStat{
			Pagesize: size, Usage: d.number(prefix + ".usage_in_bytes"),
			Max: d.number(prefix + ".max_usage_in_bytes"), Failcnt: d.number(prefix + ".failcnt"),
		})
	}
	return out
}

// hugePageSizes lists the sizes for which there is a file hugetlb.SIZE with the suffix.
func hugePageSizes(d files, suffix string) []string {
	if d == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(string(d), "hugetlb.*"+suffix))
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range files {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "hugetlb."), suffix)
		if !strings.Contains(size, ".") { // not hugetlb.SIZE.rsvd.*, nor *.max_usage_in_bytes
			out = append(out, size)
		}
	}
	return out
}

// rdmaV1 reads lines "DEVICE hca_handle=N hca_object=N".
func rdmaV1(text string) []*v1.RdmaEntry {
	var out []*v1.RdmaEntry
	for line := range strings.Lines(text) {
		name, handles, objects, ok := rdmaLine(line)
		if ok {
			out = append(out, &v1.RdmaEntry{Device: name, HcaHandles: handles, HcaObjects: objects})
		}
	}
	return out
}

func rdmaLine(line string) (name string, handles, objects uint32, ok bool) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return "", 0, 0, false
	}
	value := func(s string) uint32 {
		if s == "max" {
			return ^uint32(0)
		}
		return uint32(min(number(s), 1<<32-1))
	}
	for _, kv := range f[1:] {
		switch key, v, _ := strings.Cut(kv, "="); key {
		case "hca_handle":
			handles = value(v)
		case "hca_object":
			objects = value(v)
		}
	}
	return f[0], handles, objects, true
}
