// Orders of a shop: checkout and recovery job of the inventory service.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	inventoryv1 "inventory.example/orders/gen/inventory/v1"
)

const usage = `Usage:
  checkout [-card good|declined|timeout|lost|crash] [-ttl-ms N] [-pause-ms N] ORDER PRODUCT:QUANTITY...
  cancel ORDER
  recover`

func main() {
	err := run(context.Background(), os.Args[1:])
	unknown := (*outcomeUnknown)(nil)
	switch {
	case err == nil:
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	case errors.As(err, &unknown):
		print(outcome{Outcome: outcomeUnavailable})
	default:
		reportRefusal(err)
	}
	os.Exit(1)
}

var errUsage = errors.New("invalid arguments")

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	s, conn, err := openShop()
	if err != nil {
		return err
	}
	defer conn.Close()
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	card := flags.String("card", "good", "")
	ttlMs := flags.Int("ttl-ms", 600_000, "")
	pauseMs := flags.Int("pause-ms", 0, "")
	_ = flags.Parse(args[1:])
	id := flags.Arg(0)
	switch {
	case args[0] == "checkout" && id != "":
		lines, err := linesOf(flags.Args()[1:])
		if err != nil {
			return err
		}
		result, err := s.checkout(ctx, order{
			id:    id,
			lines: lines,
			card:  *card,
			ttl:   time.Duration(*ttlMs) * time.Millisecond,
			pause: time.Duration(*pauseMs) * time.Millisecond,
		})
		return printResult(result, err)
	case args[0] == "cancel" && id != "":
		return printResult(s.cancel(ctx, id))
	case args[0] == "recover":
		return s.recoverOrders(ctx, func(orderID string, o outcome) {
			print(struct {
				OrderID string `json:"orderId"`
				outcome
			}{orderID, o})
		})
	}
	return errUsage
}

func openShop() (*shop, *grpc.ClientConn, error) {
	inventory, err := url.Parse(or(os.Getenv("INVENTORY_URL"), "http://127.0.0.1:8080"))
	if err != nil {
		return nil, nil, err
	}
	transport := insecure.NewCredentials()
	if inventory.Scheme == "https" {
		transport = credentials.NewTLS(nil)
	}
	conn, err := grpc.NewClient(inventory.Host,
		grpc.WithTransportCredentials(transport),
		// Finds a server whose machine was lost, which does not close its connections.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second}),
		grpc.WithUnaryInterceptor(authenticate),
	)
	if err != nil {
		return nil, nil, err
	}
	dir := or(os.Getenv("SHOP_DIR"), "shop-data")
	orders, err := openJournal(dir, "orders.jsonl")
	if err != nil {
		return nil, nil, err
	}
	payments, err := openJournal(dir, "payments.jsonl")
	return &shop{inventoryv1.NewReservationServiceClient(conn), orderBook{orders}, fakePayments{payments}}, conn, err
}

func authenticate(
	ctx context.Context, method string, request, reply any,
	conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	if token := os.Getenv("INVENTORY_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return invoke(ctx, method, request, reply, conn, options...)
}

func linesOf(items []string) ([]*inventoryv1.Line, error) {
	var lines []*inventoryv1.Line
	for _, item := range items {
		productID, text, _ := strings.Cut(item, ":")
		quantity, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: %s is not PRODUCT:QUANTITY", errUsage, item)
		}
		units := int32(quantity)
		lines = append(lines, &inventoryv1.Line{ProductId: productID, Quantity: &units})
	}
	return lines, nil
}

func printResult(result outcome, err error) error {
	if err == nil {
		print(result)
	}
	return err
}

func print(result any) {
	line, _ := json.Marshal(result)
	fmt.Println(string(line))
}

// reportRefusal prints a refusal that no shopper can cause: report it to people. BadRequest names the fields.
func reportRefusal(err error) {
	refusal := status.Convert(err)
	violations := []string{}
	for _, detail := range refusal.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.GetFieldViolations() {
				violations = append(violations, violation.GetField()+" "+violation.GetDescription())
			}
		}
	}
	print(map[string]any{
		"outcome": "bug", "code": refusal.Code().String(), "message": refusal.Message(), "violations": violations,
	})
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
