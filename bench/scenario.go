package main

import (
	"context"
	"errors"
	"fmt"
)

// scenario is one thing measured in several ways.
type scenario struct {
	// name is short and begins like no other.
	name, what, unit string
	// rounds overrides how often it is measured, where it is not 0.
	rounds int
	// prepare makes what the variants need and returns how to take it away.
	prepare  func(ctx context.Context, env *environment) (variants []variant, cleanup func() error, err error)
	targets  []target
	moreWins bool
}

// variant is one way; measure returns a figure in the scenario's unit.
type variant struct {
	name    string
	measure func(ctx context.Context) (float64, error)
}

// target bounds a variant's median: by a share of another's, or where that is empty, by a figure.
type target struct {
	variant, base string
	// limit is a maximum, or a minimum where more wins.
	limit float64
}

// measure takes the variants in turn, round by round, after one round that does not count.
func measure(ctx context.Context, env *environment, s scenario, rounds int) (r result, err error) {
	if s.rounds > 0 {
		rounds = min(rounds, s.rounds)
	}
	variants, cleanup, err := s.prepare(ctx, env)
	if cleanup != nil {
		defer func() { err = errors.Join(err, cleanup()) }()
	}
	if err != nil {
		return result{}, err
	}
	figures := make([][]float64, len(variants))
	for round := -1; round < rounds; round++ {
		for i := range variants {
			// Each round begins with another, so that none always follows the same.
			k := (i + max(round, 0)) % len(variants)
			v, err := variants[k].measure(ctx)
			if err != nil {
				return result{}, fmt.Errorf("%s: %w", variants[k].name, err)
			}
			if round >= 0 {
				figures[k] = append(figures[k], v)
			}
		}
	}
	return newResult(s, variants, figures), nil
}
