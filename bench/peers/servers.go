package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/bench/load"
)

// serverHost is the name the other servers are asked by.
const serverHost = "peer.edge.localhost"

// otherServer is a server that others make, with what it needs to answer like hello.wat.
type otherServer struct {
	name, state string            // what each request gets
	program     string            // in PATH or, from npm, in node_modules/.bin
	files       map[string]string // name to text, with ADDR, PORT and DIR to be replaced
	args        []string          // of the program, in the files' folder; the same is replaced
	install     string
}

var otherServers = []otherServer{
	{
		name: "workerd", state: "the same isolate for all, one thread", program: "workerd",
		files: map[string]string{
			"worker.js": "export default { fetch() { return new Response('hello, world\\n', { headers: { 'content-type': 'text/plain' } }) } }\n",
			"config.capnp": `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (modules = [(name = "worker", esModule = embed "worker.js")], compatibilityDate = "2025-01-01"))],
  sockets = [(name = "https", address = "ADDR:PORT", service = "main",
    https = (options = (), tlsOptions = (keypair = (privateKey = embed "key.pem", certificateChain = embed "cert.pem"))))],
);
`,
		},
		args: []string{"serve", "config.capnp"}, install: "npm install workerd",
	},
	{
		name: "deno", state: "the same process for all, one thread", program: "deno",
		files: map[string]string{"server.js": `Deno.serve({ hostname: "ADDR", port: PORT, onListen() {},
  cert: Deno.readTextFileSync("cert.pem"), key: Deno.readTextFileSync("key.pem") },
  () => new Response("hello, world\n", { headers: { "content-type": "text/plain" } }));
`},
		args: []string{"run", "--quiet", "--allow-net", "--allow-read=.", "server.js"}, install: "npm install deno",
	},
	{
		name: "nginx", state: "no code runs, one worker", program: "nginx",
		files: map[string]string{"nginx.conf": `daemon off; master_process off; pid DIR/pid; error_log stderr; worker_processes 1;
events {}
http {
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  client_body_temp_path DIR/1; proxy_temp_path DIR/2; fastcgi_temp_path DIR/3; uwsgi_temp_path DIR/4; scgi_temp_path DIR/5;
  server {
    listen ADDR:PORT ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem;
    location / { return 200 "hello, world\n"; }
  }
}
`},
		args: []string{"-p", "DIR", "-c", "nginx.conf", "-e", "stderr"}, install: "apt install nginx-light",
	},
}

// serverRows asks a whole node and the servers of others the same over HTTP/1.1,
// in turn. Those not found are said to be missing.
func serverRows(ctx context.Context, s size, selvage, modules string, hello []byte) ([]row, error) {
	n, err := startNode(ctx, selvage, hello)
	if err != nil {
		return nil, err
	}
	defer n.stop()
	pids, err := n.fleet.Edges[n.edge.Name].Servers()
	if err != nil || len(pids) != 1 {
		return nil, fmt.Errorf("servers %v: %w", pids, err)
	}
	names := []string{"selvage: a fresh sandbox for each, TLS, access record, whole node"}
	hosts := []host{{url: "https://" + upgradeHost + "/", addr: n.edge.Public, conf: n.tls, pid: pids[0]}}
	for _, o := range otherServers {
		h, stop, err := o.start(ctx, modules)
		if errors.Is(err, exec.ErrNotFound) {
			fmt.Fprintf(os.Stderr, "%s: LEFT OUT, it is not here: %s\n", o.name, o.install)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
		defer stop()
		names, hosts = append(names, o.name+": "+o.state), append(hosts, h)
	}
	sides, err := ratesInTurn(ctx, s, load.H1, hosts)
	if err != nil {
		return nil, err
	}
	var rows []row
	for i, side := range sides {
		name, state, _ := strings.Cut(names[i], ": ")
		rows = append(rows,
			row{Name: "peers/" + name, Value: side.rate, Unit: "rps", Against: "selvage", Ratio: side.rate / sides[0].rate, N: side.requests, goal: state, met: true},
			row{Name: "peers/" + name + ":server", Value: side.server, Unit: "us", Against: "selvage", Ratio: side.server / sides[0].server, N: side.requests})
	}
	return rows, nil
}

// start starts the server and waits until it takes connections.
func (o *otherServer) start(ctx context.Context, modules string) (h host, stop func(), err error) {
	program, err := o.find(modules)
	if err != nil {
		return h, nil, err
	}
	dir, err := os.MkdirTemp("", "selvage-bench-"+o.name+"-")
	if err != nil {
		return h, nil, err
	}
	addr, err := freeAddress(ctx)
	if err != nil {
		return h, nil, err
	}
	ip, port, _ := net.SplitHostPort(addr)
	fill := strings.NewReplacer("ADDR", ip, "PORT", port, "DIR", dir)
	if err := o.write(dir, fill); err != nil {
		return h, nil, err
	}
	args := make([]string, len(o.args))
	for i, a := range o.args {
		args[i] = fill.Replace(a)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stderr = dir, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return h, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Kill()
		<-ended
		os.RemoveAll(dir)
	}
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return host{url: "https://" + serverHost + "/", addr: addr, conf: &tls.Config{InsecureSkipVerify: true}, pid: cmd.Process.Pid}, stop, nil
		}
		select {
		case err := <-ended:
			ended <- err
			stop()
			return h, nil, fmt.Errorf("it ended: %w\n%s", err, said.String())
		case <-ctx.Done():
			stop()
			return h, nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// find looks in modules, a folder that npm installed into, and in PATH. A command
// that npm made is a script that starts the program of a platform's package.
func (o *otherServer) find(modules string) (string, error) {
	for _, pattern := range []string{"@cloudflare/workerd-linux-*/bin/", "@deno/linux-*/"} {
		found, _ := filepath.Glob(filepath.Join(modules, "node_modules", pattern+o.program)) // the pattern is well formed
		if len(found) > 0 {
			return filepath.Abs(found[0])
		}
	}
	return exec.LookPath(o.program)
}

// write writes the server's files, and a certificate that dies with this run.
func (o *otherServer) write(dir string, fill *strings.Replacer) error {
	cert, err := throwawayCertificate()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	errs := []error{
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
	}
	for name, text := range o.files {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(fill.Replace(text)), 0o600))
	}
	return errors.Join(errs...)
}

// freeAddress is one that nothing listened on a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.91:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
