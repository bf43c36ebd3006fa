package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// Stand-ins for what Orders has of its own: a database of orders and a payment provider. Both are files, so that a
// checkout that crashed and the recovery job see the same data.

// journal keeps the newest state of each order, in a file of JSON lines.
type journal struct{ file string }

type entry struct {
	OrderID string `json:"orderId"`
	State   string `json:"state"`
}

func openJournal(dir, name string) (journal, error) {
	return journal{filepath.Join(dir, name)}, os.MkdirAll(dir, 0o755)
}

func (j journal) write(orderID, state string) error {
	line, err := json.Marshal(entry{orderID, state})
	if err != nil {
		return err
	}
	file, err := os.OpenFile(j.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}

// read returns the newest state of each order, and the orders in the sequence in which they were first written.
func (j journal) read() (states map[string]string, orderIDs []string, err error) {
	states = map[string]string{}
	file, err := os.Open(j.file)
	if errors.Is(err, os.ErrNotExist) {
		return states, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, nil, err
		}
		if _, known := states[e.OrderID]; !known {
			orderIDs = append(orderIDs, e.OrderID)
		}
		states[e.OrderID] = e.State
	}
	return states, orderIDs, lines.Err()
}

// States of an order. An order without a state was not charged.
const (
	orderCharging  = "charging"
	orderShipped   = "shipped"
	orderDeclined  = "declined"
	orderRefunded  = "refunded"
	orderCancelled = "cancelled"
)

type orderBook struct{ journal }

func (b orderBook) stateOf(orderID string) (string, error) {
	states, _, err := b.read()
	return states[orderID], err
}

// unfinished returns the orders whose charge may have happened and that have not ended.
func (b orderBook) unfinished() ([]string, error) {
	states, orderIDs, err := b.read()
	var unfinished []string
	for _, orderID := range orderIDs {
		if states[orderID] == orderCharging {
			unfinished = append(unfinished, orderID)
		}
	}
	return unfinished, err
}

// What the provider knows of a payment. Unknown: it has not arrived there, or not yet.
const (
	paymentCharged  = "charged"
	paymentDeclined = "declined"
	paymentRefunded = "refunded"
	paymentUnknown  = "unknown"
)

var errPaymentTimeout = errors.New("the payment provider did not respond")

// fakePayments takes the order ID as the idempotency key, as real providers do: a repeated charge or refund happens once.
type fakePayments struct{ journal }

func (p fakePayments) find(orderID string) (string, error) {
	states, _, err := p.read()
	if state, known := states[orderID]; known {
		return state, err
	}
	return paymentUnknown, err
}

// charge simulates one outcome for each card. "timeout": charged, but the response is lost. "lost": never arrives.
// "crash": charged, then this process dies. Any other card but "declined" is charged.
func (p fakePayments) charge(orderID, card string) (string, error) {
	if card == "lost" {
		return "", errPaymentTimeout
	}
	payment, err := p.find(orderID)
	if err == nil && payment == paymentUnknown {
		payment = paymentCharged
		if card == "declined" {
			payment = paymentDeclined
		}
		err = p.write(orderID, payment)
	}
	if err != nil {
		return "", err
	}
	switch card {
	case "crash":
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	case "timeout":
		return "", errPaymentTimeout
	}
	return payment, nil
}

func (p fakePayments) refund(orderID string) error {
	payment, err := p.find(orderID)
	if err != nil || payment != paymentCharged {
		return err
	}
	return p.write(orderID, paymentRefunded)
}
