// Command inventory is the Go service that the inventory service replaced: one method, one GET per
// request. Only the benchmarks use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"inventory-bench-peer/inventorypb"
)

type server struct {
	inventorypb.UnimplementedInventoryServer
	redis *redis.Client
}

func (s *server) Get(ctx context.Context, request *inventorypb.InventoryRequest) (*inventorypb.InventoryResponse, error) {
	count, err := s.redis.Get(ctx, request.GetId()).Result()
	if errors.Is(err, redis.Nil) {
		return nil, status.Errorf(codes.NotFound, "There is no product %q", request.GetId())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &inventorypb.InventoryResponse{Count: count}, nil
}

func main() {
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatalf("REDIS_URL: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	inventorypb.RegisterInventoryServer(grpcServer, &server{redis: redis.NewClient(options)})
	fmt.Println("listening")
	log.Fatal(grpcServer.Serve(listener))
}
