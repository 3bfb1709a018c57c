package shim

import (
	"runtime"
	"time"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// execsLimit is how long the exit of an init waits for those of its exec'd processes, which have
// been killed, to be told first.
const execsLimit = 2 * time.Second

// watch hears of the process's exit from the reaper.
func (s *Server) watch(p *process) {
	_, child := p.snapshot()
	s.wg.Go(func() {
		select {
		case <-child.Done():
			s.exited(p, child.Exit())
		case <-p.gone:
		}
	})
}

// hear feeds an exit that was held while the process was being started.
func (s *Server) hear(p *process) {
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	if held != nil {
		s.wg.Go(func() { s.exited(p, *held) })
	}
}

// exited records an exit, then announces it.
func (s *Server) exited(p *process, e reaper.Exit) {
	if s.holds(p, e) {
		return
	}
	p.mu.Lock()
	io := p.io
	if e.At.Before(p.startedAt) { // it ended while the start was being reported
		e.At = p.startedAt
	}
	p.mu.Unlock()
	if io != nil {
		io.ended()
	}
	if p.execID == "" {
		s.endExecs(p.container)
		oom := s.lastOOM(p.container) // before the cgroup goes
		s.removeLater(p.container)
		runtime.Gosched() // there is one P, and the disk would have it first
		err := exitrecord.Write(p.container.bundle, exitrecord.Record{
			ID: p.container.id, Pid: e.Pid, Status: e.Status, ExitedAt: e.At, OOM: oom,
		})
		if err != nil {
			// Better told without a record than never.
			s.log.warnf("exit %d of %s: %v", e.Status, p.container.id, err)
		}
	}
	p.mu.Lock()
	eff, err := p.stepLocked(evExited)
	switch {
	case err != nil:
		s.log.warnf("exit of %s: %v", p.id(), err)
	case eff == hold: // a start began since
		p.held = &e
	case eff == tellExit:
		p.exit = e
		s.tell("exit", "TaskExit", &events.TaskExit{
			ContainerId: p.container.id, Id: p.id(), Pid: uint32(e.Pid),
			ExitStatus: uint32(e.Status), ExitedAt: types.FromTime(e.At),
		})
		close(p.exited)
	}
	p.mu.Unlock()
	if p.execID == "" {
		s.watchOrphan()
	}
	s.worked()
}

// holds keeps the exit where the process's start has not been told yet.
func (s *Server) holds(p *process, e reaper.Exit) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, eff, err := step(p.state, evExited); err == nil && eff == hold {
		p.held = &e
		return true
	}
	return false
}

// endExecs waits until the exits of the container's exec'd processes have been told. In a pid
// namespace of its own they are dead by now; otherwise they are killed here.
func (s *Server) endExecs(c *container) {
	limit := time.NewTimer(execsLimit)
	defer limit.Stop()
	for _, p := range c.execList() {
		st, child := p.snapshot()
		if child == nil || st == stopped || st == deleted {
			continue
		}
		if err := kill(child); err != nil {
			s.log.warnf("kill %s after its container ended: %v", p.id(), err)
		}
		select {
		case <-p.exited:
		case <-p.gone:
		case <-limit.C:
			s.log.warnf("process %s outlives its container", p.id())
			return
		}
	}
}
