package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// gcPercent lets the heap grow further between collections than Go does by itself: what a peer moves is short-lived, and
// collecting it costs more throughput than anything else that can be set.
const gcPercent = 400

type runCommand struct {
	DB        string   `name:"db" required:"" placeholder:"FILE" help:"The SQLite database; made if there is none."`
	Room      string   `required:"" placeholder:"LINK" help:"The room's link, from peer room new or from the page. It is a secret: on a machine with other users, set CRMESH_ROOM instead."`
	Schema    string   `placeholder:"FILE.sql" help:"SQL with CREATE TABLE and SELECT crsql_as_crr('TABLE'). It is run if its tables are missing; once it has changed, the database is migrated to it. Without it the tables come from a member."`
	Signal    []string `placeholder:"URL" sep:"," help:"Signaling servers, tried in this order. By default the one in the link."`
	JoinToken string   `placeholder:"TOKEN" help:"Shown to signaling servers that ask for a join token; by default the one in the link. Better in the environment."`
	API       string   `name:"api" default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Address of the API for local programs (${default})."`
	Serve     string   `placeholder:"HOST:PORT" help:"Also be the signaling server and serve the page there."`
	STUN      string   `name:"stun" default:":3478" placeholder:"HOST:PORT" help:"With --serve, the UDP address of the STUN responder, or off (${default})."`
	Name      string   `placeholder:"TEXT" help:"What the other members see; by default the host's name."`
	schemaFlags
	portFlags
	program.LogFlags
}

// Run keeps the database in sync until ctx is done, or the database fails.
func (c *runCommand) Run(ctx context.Context, out program.Output) error {
	log := c.Logger(out)
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	link, err := signaling.ParseLink(c.Room)
	if err != nil {
		return err
	}
	urls, base, err := c.servers(link)
	if err != nil {
		return err
	}
	token := cmp.Or(c.JoinToken, link.Token)
	meta, err := c.meta()
	if err != nil {
		return err
	}
	network, err := c.portFlags.parse()
	if err != nil {
		return err
	}
	var schema *schemaFile
	if c.Schema != "" {
		if schema, err = readSchemaFile(c.Schema); err != nil {
			return err
		}
	}
	// Whatever can fail for a reason outside comes before anything that others see.
	listener, err := net.Listen("tcp", c.API)
	if err != nil {
		return fmt.Errorf("the API cannot listen on %s, choose another address with --api: %w", c.API, err)
	}
	defer func() { _ = listener.Close() }() // the server closes it, too, once there is one
	if !onLoopback(listener.Addr()) {
		log.Warn("the API has no password: whoever reaches it can read and write the database", "api", listener.Addr().String())
	}
	db, err := crsql.Open(ctx, c.DB, crsql.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() {
		if err := db.Close(); err != nil {
			log.Warn("the database did not close", "err", err)
		}
	}()
	replica, err := crsql.OpenReplica(ctx, db)
	if err != nil {
		return fmt.Errorf("the database %s cannot be prepared: %w", c.DB, err)
	}
	if schema != nil {
		if !link.Keys.CanWrite() {
			return errors.New("a reader takes the tables of the room: leave --schema out, or use the write link")
		}
		if err := schema.apply(ctx, db, replica, log); err != nil {
			return err
		}
	}
	if c.Serve != "" {
		server, err := startSignalServer(c.Serve, c.STUN, log)
		if err != nil {
			return err
		}
		defer server.close(log)
		base, urls = server.url, append([]string{server.local}, urls...)
	}
	lost := &missing{replica: replica, log: log}
	lost.look(ctx)
	return c.mesh(ctx, out.Stdout, log, parts{db, store{replica, log, c.accept(), lost}, listener, link.Keys, urls, base, token, meta, network})
}

// parts is what Run has put together.
type parts struct {
	db       *crsql.DB
	store    store
	listener net.Listener
	keys     signaling.Keys
	urls     []string
	base     string // of invite links
	token    string // for joining, or ""
	meta     signaling.Meta
	network  network
}

// mesh joins the room and answers the API until ctx is done.
func (c *runCommand) mesh(ctx context.Context, stdout io.Writer, log *slog.Logger, p parts) error {
	id, err := signaling.NewPeerID(rand.Reader)
	if err != nil {
		return err
	}
	introducer := newSignaler()
	defer introducer.close()
	node, err := mesh.Start(ctx, mesh.Config{
		Store: p.store, Signaler: introducer, Peer: id, Keys: p.keys, Replica: p.meta.Replica, Logger: log,
		UDPPort: c.UDPPort, TCPPort: c.TCPPort, ICELite: c.ICELite, RelayOnly: c.RelayOnly, NAT1To1: p.network.outer, ICEServers: p.network.servers,
	})
	if err != nil {
		return err
	}
	// Only now, when the node has its ports, do others hear of us.
	if err := introducer.join(signalclient.Config{URLs: p.urls, Keys: p.keys, Peer: id, Meta: p.meta, JoinToken: p.token, Logger: log}); err != nil {
		return errors.Join(err, node.Close())
	}
	a := &api{db: p.db, node: node, missing: p.store.missing, writer: p.keys.CanWrite(), loopback: onLoopback(p.listener.Addr()), log: log}
	// Requests end with the node, or they would be waited for in vain.
	requests, cancel := context.WithCancel(context.Background())
	handler := a.handler()
	server := newWebServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, done := context.WithCancel(r.Context())
		defer done()
		defer context.AfterFunc(requests, done)()
		handler.ServeHTTP(w, r.WithContext(ctx))
	}), p.listener, log)
	c.announce(stdout, p)
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case <-node.Done():
	}
	err = node.Close()
	cancel()
	server.close()
	if err != nil {
		return fmt.Errorf("the peer stopped: %w", err)
	}
	return nil
}

// announce prints the links that let others in, and where the API is. They go to whoever started the peer, and into no log.
func (c *runCommand) announce(w io.Writer, p parts) {
	base := signaling.WithToken(p.base, p.token)
	if link, ok := p.keys.WriteLink(base); ok {
		fmt.Fprintf(w, "write\t%s\n", link)
	}
	fmt.Fprintf(w, "read\t%s\napi\thttp://%s\n", p.keys.ReadLink(base), p.listener.Addr())
}

// servers returns the signaling servers to join at, besides our own, and the base of invite links.
func (c *runCommand) servers(link signaling.Link) (urls []string, base string, err error) {
	urls, base = c.Signal, link.Base
	if len(urls) > 0 {
		if base, err = pageBase(urls[0]); err != nil {
			return nil, "", err
		}
		return urls, base, nil
	}
	if link.Base != "" && c.Serve == "" {
		return []string{link.Base}, base, nil
	}
	if c.Serve == "" {
		return nil, "", errors.New("the link names no signaling server: add one with --signal, or be one with --serve")
	}
	return nil, base, nil
}

func (c *runCommand) meta() (signaling.Meta, error) {
	name := c.Name
	if name == "" {
		name, _ = os.Hostname() // no name is a name, too
		name = name[:min(len(name), signaling.MaxName)]
	}
	m := signaling.Meta{Replica: true, Name: name}
	if err := m.Check(); err != nil {
		return m, fmt.Errorf("--name: %w", err)
	}
	return m, nil
}

func onLoopback(addr net.Addr) bool {
	ap, err := netip.ParseAddrPort(addr.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}
