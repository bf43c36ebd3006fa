// Command postgres is a reservation service on PostgreSQL, as a shop would write it without this
// project: Reserve and CommitReservation of an order with one line, each one transaction. Only the
// benchmarks use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"inventory-bench-peer/inventoryv1"
)

type server struct {
	inventoryv1.UnimplementedReservationServiceServer
	pool *pgxpool.Pool
}

func (s *server) Reserve(ctx context.Context, request *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	if len(request.GetLines()) != 1 {
		return nil, status.Errorf(codes.InvalidArgument, "lines has %d entries; it must have 1", len(request.GetLines()))
	}
	line := request.GetLines()[0]
	id := request.GetReservationId()
	var created, expires time.Time
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var version int64
		var onHand, reserved int32
		err := tx.QueryRow(ctx, `UPDATE ledgers SET reserved = reserved + $2, version = version + 1
			WHERE product_id = $1 AND on_hand - reserved >= $2 RETURNING version, on_hand, reserved`,
			line.GetProductId(), line.GetQuantity()).Scan(&version, &onHand, &reserved)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `INSERT INTO reservations (reservation_id, product_id, quantity, state, created_at, expires_at)
			VALUES ($1, $2, $3, 'active', now(), now() + $4 * interval '1 second') RETURNING created_at, expires_at`,
			id, line.GetProductId(), line.GetQuantity(), request.GetTtl().AsDuration().Seconds()).Scan(&created, &expires)
		if err != nil {
			return err
		}
		return addHistory(ctx, tx, line.GetProductId(), version, "reserved", id, onHand, reserved)
	})
	if err != nil {
		return nil, statusOf(err)
	}
	return &inventoryv1.ReserveResponse{Reservation: &inventoryv1.Reservation{
		ReservationId: id,
		State:         inventoryv1.ReservationState_RESERVATION_STATE_ACTIVE,
		Lines:         request.GetLines(),
		CreateTime:    timestamppb.New(created),
		ExpireTime:    timestamppb.New(expires),
	}}, nil
}

func (s *server) CommitReservation(ctx context.Context, request *inventoryv1.CommitReservationRequest) (*inventoryv1.CommitReservationResponse, error) {
	id := request.GetReservationId()
	var productID string
	var quantity int32
	var created, expires, ended time.Time
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `UPDATE reservations SET state = 'committed', ended_at = now()
			WHERE reservation_id = $1 AND state = 'active' AND expires_at > now()
			RETURNING product_id, quantity, created_at, expires_at, ended_at`,
			id).Scan(&productID, &quantity, &created, &expires, &ended)
		if err != nil {
			return err
		}
		var version int64
		var onHand, reserved int32
		err = tx.QueryRow(ctx, `UPDATE ledgers SET on_hand = on_hand - $2, reserved = reserved - $2, sold = sold + $2,
			version = version + 1 WHERE product_id = $1 RETURNING version, on_hand, reserved`,
			productID, quantity).Scan(&version, &onHand, &reserved)
		if err != nil {
			return err
		}
		return addHistory(ctx, tx, productID, version, "committed", id, onHand, reserved)
	})
	if err != nil {
		return nil, statusOf(err)
	}
	lines := []*inventoryv1.Line{{ProductId: productID, Quantity: &quantity}}
	return &inventoryv1.CommitReservationResponse{Reservation: &inventoryv1.Reservation{
		ReservationId:  id,
		State:          inventoryv1.ReservationState_RESERVATION_STATE_COMMITTED,
		Lines:          lines,
		CommittedLines: lines,
		CreateTime:     timestamppb.New(created),
		ExpireTime:     timestamppb.New(expires),
		EndTime:        timestamppb.New(ended),
	}}, nil
}

func addHistory(ctx context.Context, tx pgx.Tx, productID string, version int64, cause, reference string, onHand, reserved int32) error {
	_, err := tx.Exec(ctx, `INSERT INTO history (product_id, version, cause, reference, on_hand, reserved, changed_at)
		VALUES ($1, $2, $3, $4, $5, $6, now())`, productID, version, cause, reference, onHand, reserved)
	return err
}

func statusOf(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return status.Error(codes.FailedPrecondition, "Stock is short, or the reservation is not active")
	}
	return status.Error(codes.Unavailable, err.Error())
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("POSTGRES_URL"))
	if err != nil {
		log.Fatalf("POSTGRES_URL: %v", err)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	inventoryv1.RegisterReservationServiceServer(grpcServer, &server{pool: pool})
	fmt.Println("listening on", runtime.GOMAXPROCS(0), "cores")
	log.Fatal(grpcServer.Serve(listener))
}
