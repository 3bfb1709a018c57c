package cgroup

import (
	"strconv"
	"strings"

	v2 "github.com/cleatproject/cleat/proto/cgroups/v2"
)

// statsV2 reads the single directory of a unified host.
func statsV2(d files) *v2.Metrics {
	events := d.keyed("memory.events")
	m := &v2.Metrics{
		Pids:   &v2.PidsStat{Current: d.number("pids.current"), Limit: d.number("pids.max")},
		Cpu:    cpuV2(d),
		Memory: memoryV2(d),
		Io:     ioV2(d),
		Rdma:   &v2.RdmaStat{Current: rdmaV2(d.text("rdma.current")), Limit: rdmaV2(d.text("rdma.max"))},
		MemoryEvents: &v2.MemoryEvents{
			Low: events["low"], High: events["high"], Max: events["max"],
			Oom: events["oom"], OomKill: events["oom_kill"], OomGroupKill: events["oom_group_kill"],
		},
	}
	for _, size := range hugePageSizes(d, ".current") {
		prefix := "hugetlb." + size
		m.Hugetlb = append(m.Hugetlb, &v2.HugeTlbStat{
			Pagesize: size, Current: d.number(prefix + ".current"), Max: d.limit(prefix + ".max"),
			Failcnt: d.keyed(prefix + ".events")["max"],
		})
	}
	return m
}

func cpuV2(d files) *v2.CPUStat {
	s := d.keyed("cpu.stat")
	return &v2.CPUStat{
		UsageUsec: s["usage_usec"], UserUsec: s["user_usec"], SystemUsec: s["system_usec"],
		NrPeriods: s["nr_periods"], NrThrottled: s["nr_throttled"], ThrottledUsec: s["throttled_usec"],
		NrBursts: s["nr_bursts"], BurstUsec: s["burst_usec"], Psi: pressure(d.text("cpu.pressure")),
	}
}

func memoryV2(d files) *v2.MemoryStat {
	s := d.keyed("memory.stat")
	return &v2.MemoryStat{
		Anon: s["anon"], File: s["file"], KernelStack: s["kernel_stack"], Slab: s["slab"], Sock: s["sock"],
		Shmem: s["shmem"], FileMapped: s["file_mapped"], FileDirty: s["file_dirty"], FileWriteback: s["file_writeback"],
		AnonThp: s["anon_thp"], InactiveAnon: s["inactive_anon"], ActiveAnon: s["active_anon"],
		InactiveFile: s["inactive_file"], ActiveFile: s["active_file"], Unevictable: s["unevictable"],
		SlabReclaimable: s["slab_reclaimable"], SlabUnreclaimable: s["slab_unreclaimable"],
		Pgfault: s["pgfault"], Pgmajfault: s["pgmajfault"],
		// Newer kernels count anonymous and file pages apart.
		WorkingsetRefault:     s["workingset_refault"] + s["workingset_refault_anon"] + s["workingset_refault_file"],
		WorkingsetActivate:    s["workingset_activate"] + s["workingset_activate_anon"] + s["workingset_activate_file"],
		WorkingsetNodereclaim: s["workingset_nodereclaim"],
		Pgrefill:              s["pgrefill"], Pgscan: s["pgscan"], Pgsteal: s["pgsteal"], Pgactivate: s["pgactivate"],
		Pgdeactivate: s["pgdeactivate"], Pglazyfree: s["pglazyfree"], Pglazyfreed: s["pglazyfreed"],
		ThpFaultAlloc: s["thp_fault_alloc"], ThpCollapseAlloc: s["thp_collapse_alloc"],
		Usage: d.number("memory.current"), UsageLimit: d.limit("memory.max"), MaxUsage: d.number("memory.peak"),
		SwapUsage: d.number("memory.swap.current"), SwapLimit: d.limit("memory.swap.max"),
		SwapMaxUsage: d.number("memory.swap.peak"), Psi: pressure(d.text("memory.pressure")),
	}
}

// ioV2 reads lines "MAJOR:MINOR key=value ...".
func ioV2(d files) *v2.IOStat {
	out := &v2.IOStat{Psi: pressure(d.text("io.pressure"))}
	for line := range strings.Lines(d.text("io.stat")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		e := &v2.IOEntry{Major: major, Minor: minor}
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(kv, "=")
			switch key {
			case "rbytes":
				e.Rbytes = number(value)
			case "wbytes":
				e.Wbytes = number(value)
			case "rios":
				e.Rios = number(value)
			case "wios":
				e.Wios = number(value)
			}
		}
		out.Usage = append(out.Usage, e)
	}
	return out
}

// pressure reads lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"; nil if there are none.
func pressure(text string) *v2.PSIStats {
	var out *v2.PSIStats
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "some" && f[0] != "full" {
			continue
		}
		data := &v2.PSIData{}
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(kv, "=")
			avg, err := strconv.ParseFloat(value, 64)
			if err != nil {
				continue
			}
			switch key {
			case "avg10":
				data.Avg10 = avg
			case "avg60":
				data.Avg60 = avg
			case "avg300":
				data.Avg300 = avg
			case "total":
				data.Total = number(value)
			}
		}
		if out == nil {
			out = &v2.PSIStats{}
		}
		if f[0] == "some" {
			out.Some = data
		} else {
			out.Full = data
		}
	}
	return out
}

func rdmaV2(text string) []*v2.RdmaEntry {
	var out []*v2.RdmaEntry
	for line := range strings.Lines(text) {
		if name, handles, objects, ok := rdmaLine(line); ok {
			out = append(out, &v2.RdmaEntry{Device: name, HcaHandles: handles, HcaObjects: objects})
		}
	}
	return out
}
