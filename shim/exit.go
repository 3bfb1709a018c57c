package shim

import (
	"runtime"
	"time"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// execsLimit bounds the wait of an init's exit for the exits of its exec'd processes, which have
// been killed, to be published first.
const execsLimit = 2 * time.Second

// watch registers with the reaper for the process's exit.
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

// deliverHeld delivers an exit that was held while the process was being started.
func (s *Server) deliverHeld(p *process) {
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	if held != nil {
		s.wg.Go(func() { s.exited(p, *held) })
	}
}

// exited records an exit, then publishes it.
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
		io.Ended()
	}
	if p.execID == "" {
		s.endExecs(p.container)
		oom := s.lastOOM(p.container) // before the cgroup is removed
		s.removeLater(p.container)
		runtime.Gosched() // there is one P, and the disk write would occupy it first
		err := exitrecord.Write(p.container.bundle, exitrecord.Record{
			ID: p.container.id, Pid: e.Pid, Status: e.Status, ExitedAt: e.At, OOM: oom,
		})
		if err != nil {
			// Publish without a record rather than not at all.
			s.log.Warnf("exit %d of %s: %v", e.Status, p.container.id, err)
		}
	}
	p.mu.Lock()
	eff, err := p.stepLocked(evExited)
	switch {
	case err != nil:
		s.log.Warnf("exit of %s: %v", p.id(), err)
	case eff == hold: // a start has begun in between
		p.held = &e
	case eff == publishExit:
		p.exit = e
		s.publish("exit", "TaskExit", &events.TaskExit{
			ContainerId: p.container.id, Id: p.id(), Pid: uint32(e.Pid),
			ExitStatus: uint32(e.Status), ExitedAt: types.FromTime(e.At),
		})
		close(p.exited)
	}
	p.mu.Unlock()
	if p.execID == "" {
		s.watchOrphan()
	}
	s.countCall()
}

// holds keeps the exit if the process's start has not been published yet.
func (s *Server) holds(p *process, e reaper.Exit) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, eff, err := step(p.state, evExited); err == nil && eff == hold {
		p.held = &e
		return true
	}
	return false
}

// endExecs waits until the exits of the container's exec'd processes have been published. In a pid
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
			s.log.Warnf("kill %s after its container ended: %v", p.id(), err)
		}
		select {
		case <-p.exited:
		case <-p.gone:
		case <-limit.C:
			s.log.Warnf("process %s outlives its container", p.id())
			return
		}
	}
}
