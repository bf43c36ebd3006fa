// Command postgres is a reservation service on PostgreSQL, as a shop would write it without this
// project: Reserve and CommitReservation of an order with one line, each one transaction. Only the
// benchmarks use it.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"inventory-bench-peer/inventoryv1"
)

var (
	//go:embed reserve.sql
	reserveSQL string
	//go:embed commit.sql
	commitSQL string
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
	id, ttl := request.GetReservationId(), int64(request.GetTtl().AsDuration().Seconds())
	if err := s.run(ctx, reserveSQL, line.GetProductId(), line.GetQuantity(), id, ttl); err != nil {
		return nil, err
	}
	return &inventoryv1.ReserveResponse{Reservation: &inventoryv1.Reservation{
		ReservationId: id,
		State:         inventoryv1.ReservationState_RESERVATION_STATE_ACTIVE,
		Lines:         request.GetLines(),
	}}, nil
}

func (s *server) CommitReservation(ctx context.Context, request *inventoryv1.CommitReservationRequest) (*inventoryv1.CommitReservationResponse, error) {
	id := request.GetReservationId()
	if err := s.run(ctx, commitSQL, id); err != nil {
		return nil, err
	}
	return &inventoryv1.CommitReservationResponse{Reservation: &inventoryv1.Reservation{
		ReservationId: id,
		State:         inventoryv1.ReservationState_RESERVATION_STATE_COMMITTED,
	}}, nil
}

// run runs a statement, which is a transaction of its own and returns a row if its condition was met.
func (s *server) run(ctx context.Context, statement string, arguments ...any) error {
	var version int64
	err := s.pool.QueryRow(ctx, statement, arguments...).Scan(&version)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return status.Error(codes.FailedPrecondition, "Stock is short, or the reservation is not active")
	case err != nil:
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
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
