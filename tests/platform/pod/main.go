// pod is what the Pods of the node tests run: a small web server that does as it is told.
//
//	pod          serves HTTP on $PORT (8080) and answers with $VERSION
//	pod pause    waits for its end: the container that holds the network of a Pod
//
// GET /ready says 200, or 503 while it is told not to be ready: from the start with READY=false, later with
// POST /ready?is=true or false. POST /crash ends it with an error; CRASH_AFTER=5s does so by itself.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "pause" {
		<-ended.Done()
		return
	}
	if after, err := time.ParseDuration(os.Getenv("CRASH_AFTER")); err == nil {
		time.AfterFunc(after, func() { log.Fatalf("crashing after %v, as told", after) })
	}
	server := &http.Server{Addr: ":" + or(os.Getenv("PORT"), "8080"), Handler: handler()}
	go func() {
		<-ended.Done()
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func handler() http.Handler {
	var unready atomic.Bool
	unready.Store(os.Getenv("READY") == "false")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /ready", func(_ http.ResponseWriter, r *http.Request) {
		unready.Store(r.URL.Query().Get("is") == "false")
	})
	mux.HandleFunc("POST /crash", func(http.ResponseWriter, *http.Request) { log.Fatal("crashing, as told") })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("VERSION")) })
	return mux
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
