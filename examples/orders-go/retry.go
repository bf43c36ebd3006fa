package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// The deadline of one attempt. The service refuses within a second what it cannot do.
	attemptMax = 2 * time.Second
	// No attempt begins later than this after the first one: the shopper waits.
	giveUpAfter  = 15 * time.Second
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 2 * time.Second
)

// outcomeUnknown means that every attempt failed without a decision: the call may have taken effect or not.
type outcomeUnknown struct {
	attempts int
	cause    error
}

func (e *outcomeUnknown) Error() string {
	return fmt.Sprintf("no decision after %d attempts: %v", e.attempts, e.cause)
}

func (e *outcomeUnknown) Unwrap() error { return e.cause }

// isDecision reports whether the service has decided. After any other code, the call may have taken effect or not.
func isDecision(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss:
		return true
	}
	return false
}

// repeat calls until the service has decided. Each attempt sends the same request, so the same ID, and takes effect
// at most once. It waits between attempts with exponential backoff and full jitter, on top of the delay that RetryInfo
// asks for. It returns the status of a refusal, and *outcomeUnknown after 15 seconds.
func repeat[Request, Response any](
	ctx context.Context,
	call func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	giveUpAt := time.Now().Add(giveUpAfter)
	for attempt := 0; ; attempt++ {
		response, err := try(ctx, call, request)
		if err == nil {
			return response, nil
		}
		code := status.Code(err)
		retryDelay, hasRetryInfo := retryDelayOf(err)
		// Without RetryInfo, RESOURCE_EXHAUSTED means that the message is too large.
		isTooLarge := code == codes.ResourceExhausted && !hasRetryInfo
		if isDecision(code) || isTooLarge || ctx.Err() != nil {
			return response, err
		}
		limit := min(backoffMax, backoffFirst<<min(attempt, 10))
		delay := retryDelay + rand.N(limit)
		if time.Now().Add(delay).After(giveUpAt) {
			return response, &outcomeUnknown{attempt + 1, err}
		}
		logRetry(code, attempt, retryDelay, delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return response, err
		}
	}
}

func try[Request, Response any](
	ctx context.Context,
	call func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptMax)
	defer cancel()
	return call(ctx, request)
}

func retryDelayOf(err error) (time.Duration, bool) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

func logRetry(code codes.Code, attempt int, retryDelay, delay time.Duration) {
	line, _ := json.Marshal(map[string]any{
		"retry":        code.String(),
		"attempt":      attempt,
		"retryDelayMs": retryDelay.Milliseconds(),
		"delayMs":      delay.Milliseconds(),
	})
	fmt.Fprintln(os.Stderr, string(line))
}
