package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// startPrivate serves metrics and profiles on an address of the operator's own; without one it serves nothing. stop ends it and waits.
func (f *serve) startPrivate(server *signalserver.Server, certs *certificates, log *slog.Logger) (stop func(), err error) {
	if f.Private == "" {
		return func() {}, nil
	}
	if err := namesPort("private", f.Private); err != nil {
		return nil, err
	}
	handler, err := privateHandler(server, certs)
	if err != nil {
		return nil, err
	}
	listener, err := f.listenConfig().Listen(context.Background(), "tcp", f.Private)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s, choose another address with --private: %w", f.Private, err)
	}
	httpServer := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes the 30 s that it measures
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          httpLog(log, nil),
	}
	log.Info("private", "listen", listener.Addr().String())
	served := make(chan struct{})
	go func() { // ends with stop
		defer close(served)
		if err := httpServer.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are no longer served", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if httpServer.Shutdown(ctx) != nil {
			_ = httpServer.Close() // a profile that is being measured
		}
		<-served
	}, nil
}

func privateHandler(server *signalserver.Server, certs *certificates) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	all := append(server.Collectors(), collectors.NewGoCollector(), collectors.NewBuildInfoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if certs != nil {
		all = append(all, certs)
	}
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("the metrics do not fit together: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
		// Secrets may stand in the arguments.
		http.Error(w, "The command line is not shown; see signal check.", http.StatusForbidden)
	})
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux, nil
}

var expiryDesc = prometheus.NewDesc("crmesh_signal_certificate_expiry_timestamp_seconds",
	"When the certificate for this name expires, in seconds since 1970.", []string{"name"}, nil)

// Describe implements prometheus.Collector.
func (*certificates) Describe(ch chan<- *prometheus.Desc) { ch <- expiryDesc }

// Collect implements prometheus.Collector.
func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	for _, leaf := range c.leaves() {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()), leaf.name)
	}
}
