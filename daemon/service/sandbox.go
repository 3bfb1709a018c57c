package service

import (
	"cmp"
	"context"

	apievents "github.com/containerd/containerd/api/events"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/metadata"
)

// CreateSandbox records a sandbox as a client describes it. A runtime that is not named is the
// namespace's default.
func (s *Service) CreateSandbox(ctx context.Context, namespace string, v metadata.Sandbox) (created metadata.Sandbox, err error) {
	err = s.DB.Update(ctx, func(tx *metadata.Tx) error {
		v := v
		_, runtimeName, err := s.defaults(tx, namespace)
		if err != nil {
			return err
		}
		v.Runtime.Name = cmp.Or(v.Runtime.Name, runtimeName)
		if created, err = tx.Sandboxes(namespace).Create(v); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/sandboxes/create", &apievents.SandboxCreate{SandboxID: created.ID})
	})
	return created, err
}
