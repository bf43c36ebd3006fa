package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "inventory.example/orders/gen/inventory/v1"
)

type shop struct {
	reservations inventoryv1.ReservationServiceClient
	orders       orderBook
	payments     fakePayments
}

type order struct {
	// Also the reservation ID. A new attempt after "expired" or "cancelled" needs a new one.
	id    string
	lines []*inventoryv1.Line
	card  string
	ttl   time.Duration
	// How long the shopper takes to enter the card.
	pause time.Duration
}

const (
	// Paid and sold. Revived: the reservation had expired, and its units were still there.
	outcomeShipped = "shipped"
	// Nothing is held, nothing was charged. Show the shopper what is left.
	outcomeSoldOut = "sold_out"
	// A product does not exist or was deleted. Nothing is held, nothing was charged.
	outcomeUnknownProduct = "unknown_product"
	// The ID was released, or its units were taken back. Nothing was charged, or it was refunded.
	outcomeCancelled = "cancelled"
	// The shopper took too long. Nothing was charged: start again under a new ID.
	outcomeExpired  = "expired"
	outcomeDeclined = "declined"
	// Charged, but the units were gone: the money was returned.
	outcomeRefunded = "refunded"
	// Charged, or perhaps charged: the recovery job will finish the order. Do not start another one.
	outcomePending = "pending"
	// The service cannot be reached. Nothing was charged: try again under the same ID.
	outcomeUnavailable = "unavailable"
)

type shortLine struct {
	ProductID string `json:"productId"`
	Requested int32  `json:"requested"`
	Available int32  `json:"available"`
}

type outcome struct {
	Outcome string `json:"outcome"`
	// Of "shipped" only.
	Revived *bool `json:"revived,omitempty"`
	// Of "sold_out" and "refunded" only.
	Short   []shortLine `json:"short,omitempty"`
	Message string      `json:"message,omitempty"`
}

// checkout returns a status as error for a fault of this program, such as a reused ID (ALREADY_EXISTS) or
// INVALID_ARGUMENT.
func (s *shop) checkout(ctx context.Context, o order) (outcome, error) {
	ended, err := s.reserve(ctx, o)
	if ended == nil && err == nil {
		var paid outcome
		paid, err = s.pay(ctx, o)
		ended = &paid
	}
	if unknown := (*outcomeUnknown)(nil); errors.As(err, &unknown) {
		state, err := s.orders.stateOf(o.id)
		if state == "" {
			// Before the charge, a reservation that was made nevertheless expires by itself.
			return outcome{Outcome: outcomeUnavailable}, err
		}
		return outcome{Outcome: outcomePending}, err
	}
	if err != nil {
		return outcome{}, err
	}
	return *ended, nil
}

// reserve returns nil if the units are held, else the outcome.
func (s *shop) reserve(ctx context.Context, o order) (*outcome, error) {
	response, err := repeat(ctx, s.reservations.Reserve, &inventoryv1.ReserveRequest{
		ReservationId: o.id,
		Lines:         o.lines,
		Ttl:           durationpb.New(o.ttl),
	})
	if err != nil {
		return refusedReserve(err)
	}
	state, err := s.orders.stateOf(o.id)
	if err != nil {
		return nil, err
	}
	// A repetition gets the current state: an earlier attempt, or the recovery job, may have ended the reservation.
	switch response.GetReservation().GetState() {
	case inventoryv1.ReservationState_RESERVATION_STATE_COMMITTED:
		// Also of an order that was cancelled later, with its units returned.
		if state == orderCancelled {
			return &outcome{Outcome: outcomeCancelled}, nil
		}
		return pointer(s.shipped(o.id, response.GetReservation().GetRevived()))
	case inventoryv1.ReservationState_RESERVATION_STATE_RELEASED:
		return &outcome{Outcome: outcomeCancelled}, nil
	case inventoryv1.ReservationState_RESERVATION_STATE_EXPIRED:
		if state != orderCharging {
			return &outcome{Outcome: outcomeExpired}, nil
		}
		return pointer(s.settle(ctx, o.id))
	}
	return nil, nil
}

func refusedReserve(err error) (*outcome, error) {
	switch status.Code(err) {
	case codes.FailedPrecondition:
		if short := shortLinesOf(err); short != nil {
			return &outcome{Outcome: outcomeSoldOut, Short: short}, nil
		}
		return &outcome{Outcome: outcomeCancelled}, nil
	case codes.NotFound:
		return &outcome{Outcome: outcomeUnknownProduct, Message: status.Convert(err).Message()}, nil
	}
	return nil, err
}

func (s *shop) pay(ctx context.Context, o order) (outcome, error) {
	begin := time.Now()
	time.Sleep(o.pause)
	// A charge must not begin shortly before the deadline. Measured here, because the deadline is by the store's clock.
	if time.Since(begin) > o.ttl/2 {
		held, err := s.extend(ctx, o)
		if err != nil {
			return outcome{}, err
		}
		if !held {
			return outcome{Outcome: outcomeExpired}, nil
		}
	}
	// Recorded before the charge, so that the recovery job finds the order whenever this process ends.
	if err := s.orders.write(o.id, orderCharging); err != nil {
		return outcome{}, err
	}
	// The provider knows the result, also after a timeout: settle asks it.
	if _, err := s.payments.charge(o.id, o.card); err != nil && !errors.Is(err, errPaymentTimeout) {
		return outcome{}, err
	}
	return s.settle(ctx, o.id)
}

// extend returns false if the reservation has ended.
func (s *shop) extend(ctx context.Context, o order) (bool, error) {
	_, err := repeat(ctx, s.reservations.ExtendReservation, &inventoryv1.ExtendReservationRequest{
		ReservationId: o.id,
		Ttl:           durationpb.New(o.ttl),
	})
	if code := status.Code(err); code == codes.FailedPrecondition || code == codes.NotFound {
		return false, nil
	}
	return err == nil, err
}

// settle does what follows from a payment, for the checkout and for the recovery job. May be repeated, also by both at
// once.
func (s *shop) settle(ctx context.Context, id string) (outcome, error) {
	payment, err := s.payments.find(id)
	if err != nil {
		return outcome{}, err
	}
	switch payment {
	case paymentCharged:
		return s.commit(ctx, id)
	case paymentDeclined:
		released, err := s.release(ctx, id)
		if err != nil {
			return outcome{}, err
		}
		if !released {
			return outcome{}, fmt.Errorf("order %s is sold although its payment was declined", id)
		}
		return outcome{Outcome: outcomeDeclined}, s.orders.write(id, orderDeclined)
	case paymentRefunded:
		// The reservation was released, or its units were returned, before the refund.
		return outcome{Outcome: outcomeRefunded}, s.orders.write(id, orderRefunded)
	}
	return outcome{Outcome: outcomePending}, nil
}

func (s *shop) commit(ctx context.Context, id string) (outcome, error) {
	response, err := repeat(ctx, s.reservations.CommitReservation, &inventoryv1.CommitReservationRequest{ReservationId: id})
	switch status.Code(err) {
	case codes.OK:
		return s.shipped(id, response.GetReservation().GetRevived())
	case codes.FailedPrecondition, codes.NotFound:
		// With a Shortage: it had expired and its units are sold. Without: it was released. NOT_FOUND: it is forgotten.
		return s.refund(ctx, id, shortLinesOf(err))
	}
	return outcome{}, err
}

// refund releases first: otherwise another job could still commit the expired reservation, if units return to stock.
func (s *shop) refund(ctx context.Context, id string, short []shortLine) (outcome, error) {
	released, err := s.release(ctx, id)
	if err != nil {
		return outcome{}, err
	}
	if !released {
		return s.shipped(id, true)
	}
	if err := s.payments.refund(id); err != nil {
		return outcome{}, err
	}
	return outcome{Outcome: outcomeRefunded, Short: short}, s.orders.write(id, orderRefunded)
}

// cancel cancels an order at any time: it releases what is held, or takes back what was sold.
func (s *shop) cancel(ctx context.Context, id string) (outcome, error) {
	released, err := s.release(ctx, id)
	if err != nil {
		return outcome{}, err
	}
	if !released {
		if err := s.takeBack(ctx, id); err != nil {
			return outcome{}, err
		}
	}
	if err := s.payments.refund(id); err != nil {
		return outcome{}, err
	}
	state, err := s.orders.stateOf(id)
	if err != nil {
		return outcome{}, err
	}
	payment, err := s.payments.find(id)
	if err != nil {
		return outcome{}, err
	}
	cancelled := outcome{Outcome: outcomeCancelled}
	// A charge may still be on its way. The recovery job then finds the reservation released, and refunds it.
	if state == orderCharging && payment == paymentUnknown {
		return cancelled, nil
	}
	return cancelled, s.orders.write(id, orderCancelled)
}

func (s *shop) takeBack(ctx context.Context, id string) error {
	response, err := repeat(ctx, s.reservations.GetReservation, &inventoryv1.GetReservationRequest{ReservationId: id})
	if err != nil {
		return err
	}
	_, err = repeat(ctx, s.reservations.ReturnReservation, &inventoryv1.ReturnReservationRequest{
		ReservationId: id,
		ReturnId:      id + "-cancelled",
		Lines:         response.GetReservation().GetLines(),
	})
	return err
}

// release returns false if the reservation is committed.
func (s *shop) release(ctx context.Context, id string) (bool, error) {
	_, err := repeat(ctx, s.reservations.ReleaseReservation, &inventoryv1.ReleaseReservationRequest{ReservationId: id})
	if status.Code(err) == codes.FailedPrecondition {
		return false, nil
	}
	return err == nil, err
}

func (s *shop) shipped(id string, revived bool) (outcome, error) {
	return outcome{Outcome: outcomeShipped, Revived: &revived}, s.orders.write(id, orderShipped)
}

func shortLinesOf(err error) []shortLine {
	for _, detail := range status.Convert(err).Details() {
		shortage, ok := detail.(*inventoryv1.Shortage)
		if !ok {
			continue
		}
		var short []shortLine
		for _, line := range shortage.GetLines() {
			short = append(short, shortLine{line.GetProductId(), line.GetRequested(), line.GetAvailable()})
		}
		return short
	}
	return nil
}

func pointer(o outcome, err error) (*outcome, error) { return &o, err }
