package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	inventoryv1 "inventory.example/orders/gen/inventory/v1"
)

const (
	pageSize = 100
	// How far ahead of their deadlines reservations are looked at. The job runs more often than that.
	horizon = 2 * time.Minute
)

// outcomeFailed means that this order needs a person; the job continues with the next one.
const outcomeFailed = "failed"

// recoverOrders finishes the orders of checkouts that did not: those whose reservations expire soon, while their units
// are still held, and then those that expired already, which ListReservations does not list. A reservation without a
// payment is left to expire. May run at any time, also twice at once.
func (s *shop) recoverOrders(ctx context.Context, report func(orderID string, o outcome)) error {
	expireBefore := timestamppb.New(time.Now().Add(horizon))
	done := map[string]bool{}
	finish := func(orderID string) {
		done[orderID] = true
		report(orderID, s.finish(ctx, orderID))
	}
	for pageToken := ""; ; {
		page, err := repeat(ctx, s.reservations.ListReservations, &inventoryv1.ListReservationsRequest{
			PageSize:     pageSize,
			PageToken:    pageToken,
			ExpireBefore: expireBefore,
		})
		if err != nil {
			return err
		}
		for _, reservation := range page.GetReservations() {
			orderID := reservation.GetReservationId()
			payment, err := s.payments.find(orderID)
			if err != nil {
				return err
			}
			// Without a payment, the shopper is still paying, or has left.
			if payment != paymentUnknown {
				finish(orderID)
			}
		}
		if pageToken = page.GetNextPageToken(); pageToken == "" {
			break
		}
	}
	unfinished, err := s.orders.unfinished()
	for _, orderID := range unfinished {
		if !done[orderID] {
			finish(orderID)
		}
	}
	return err
}

func (s *shop) finish(ctx context.Context, orderID string) outcome {
	settled, err := s.settle(ctx, orderID)
	if unknown := (*outcomeUnknown)(nil); errors.As(err, &unknown) {
		return outcome{Outcome: outcomePending}
	}
	if err != nil {
		return outcome{Outcome: outcomeFailed, Message: err.Error()}
	}
	return settled
}
