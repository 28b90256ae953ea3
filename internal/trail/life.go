package trail

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// within is the deadline of a line that begins now.
func (t *Trail) within() context.Context {
	d := t.soon.Load()
	if d.Err() != nil { // the whole process stood still meanwhile
		d = t.renew()
	}
	return d
}

// renew makes the shared deadline one that ends later. Who waits on the old one
// still has its time; it ends by itself.
func (t *Trail) renew() *deadline {
	ctx, cancel := context.WithTimeout(context.Background(), t.SinkDeadline+everySecond)
	d := &deadline{ctx, cancel}
	t.soon.Store(d)
	return d
}

// beat must never wait for a disk: it is what ends the waiting.
func (t *Trail) beat(ctx context.Context) {
	tick := time.NewTicker(everySecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.renew()
		for _, s := range t.sinks {
			s.watch()
		}
	}
}

// Checkpoint signs every stream of every sink that works now, where something
// is new, and keeps the note. ctx bounds the waiting.
func (t *Trail) Checkpoint(ctx context.Context) error {
	var errs []error
	for _, s := range t.sinks {
		errs = append(errs, t.ask(ctx, s))
	}
	return errors.Join(errs...)
}

func (t *Trail) ask(ctx context.Context, s *sink) error {
	if !s.up.Load() {
		return nil // Health tells
	}
	reply := make(chan error, 1)
	select {
	case s.asked <- reply:
	case <-ctx.Done():
		return fmt.Errorf("trail: checkpoint of %s: %w", s.dir, ctx.Err())
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return fmt.Errorf("trail: checkpoint of %s: %w", s.dir, ctx.Err())
	}
}

// Records reports whether lines are recorded at this moment: one sink is enough.
func (t *Trail) Records() bool {
	for _, s := range t.sinks {
		if s.health() == nil {
			return true
		}
	}
	return false
}

// Health is nil while every sink works.
func (t *Trail) Health() error {
	var errs []error
	for _, s := range t.sinks {
		if err := s.health(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.dir, err))
		}
	}
	return errors.Join(errs...)
}

// Close writes what is pending, signs it and closes the files. It gives up on a
// sink that hangs. What is recorded later is refused.
func (t *Trail) Close() error { return t.closed() }

func (t *Trail) shut() error {
	t.stop()
	t.done.Wait()
	t.refusals.turn(true)
	t.refusals.write()
	return t.shutSinks()
}

// shutSinks ends the sinks and waits until each has closed its files, or hangs.
func (t *Trail) shutSinks() error {
	t.endSinks()
	timer := time.NewTimer(patience * t.SinkDeadline)
	defer timer.Stop()
	var errs []error
	for _, s := range t.sinks {
		select {
		case err := <-s.last:
			errs = append(errs, err)
		case <-timer.C:
			timer.Reset(0) // the others have had the same time
			errs = append(errs, fmt.Errorf("trail: %s: not closed within %v", s.dir, patience*t.SinkDeadline))
		}
	}
	return errors.Join(errs...)
}
