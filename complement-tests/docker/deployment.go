package docker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/client"
	"github.com/matrix-org/complement/config"
	"github.com/matrix-org/complement/ct"
	"github.com/matrix-org/complement/helpers"
	"github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
)

const (
	// syncPatience is how long a test waits for something to come down /sync.
	syncPatience    = 5 * time.Second
	defaultPassword = "correct-horse-battery-staple-42"
	// clientPatience is how long a client waits for an answer.
	clientPatience = 30 * time.Second
)

// Deployment is a set of running homeservers that a test plays with.
type Deployment struct {
	Dirty bool
	HS    map[string]*HomeserverDeployment

	deployer *Deployer
	slot     int
	users    atomic.Int64
}

func newDeployment(deployer *Deployer) (*Deployment, error) {
	slot, err := takeSlot()
	return &Deployment{HS: map[string]*HomeserverDeployment{}, deployer: deployer, slot: slot}, err
}

func (d *Deployment) add(name string, services []b.ApplicationService) error {
	server, err := newServer(d.deployer.config, d.slot, name, services)
	if err != nil {
		return err
	}
	d.HS[name] = server
	return server.start()
}

func (d *Deployment) waitAll() error {
	for _, server := range d.HS {
		if err := server.wait(d.deployer.config.SpawnHSTimeout); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deployment) kill() {
	for _, server := range d.HS {
		server.kill()
		_ = os.RemoveAll(server.folder)
	}
}

func (d *Deployment) printLogs() {
	for _, server := range d.HS {
		server.printLog()
	}
}

// Destroy ends the servers and removes what they stored, unless other tests share them.
func (d *Deployment) Destroy(t ct.TestLike) {
	t.Helper()
	if t.Failed() {
		for _, server := range d.HS {
			keepLog(server, t.Name())
		}
	}
	if !d.Dirty {
		d.end()
	}
}

// DestroyAtCleanup ends servers that tests shared.
func (d *Deployment) DestroyAtCleanup() {
	if d.Dirty {
		d.end()
	}
}

func (d *Deployment) end() {
	d.kill()
	giveSlotBack(d.slot)
}

// GetConfig gives the suite's configuration of this run.
func (d *Deployment) GetConfig() *config.Complement { return d.deployer.config }

// Network is empty: there are no containers to attach.
func (*Deployment) Network() string { return "" }

// ContainerID gives the folder of the server, the nearest thing a process has.
func (d *Deployment) ContainerID(t ct.TestLike, hsName string) string {
	return d.server(t, hsName).ContainerID
}

// GetFullyQualifiedHomeserverName gives the server's name in Matrix identifiers: it is the short one.
func (d *Deployment) GetFullyQualifiedHomeserverName(t ct.TestLike, hsName string) spec.ServerName {
	return spec.ServerName(d.server(t, hsName).name)
}

func (d *Deployment) server(t ct.TestLike, hsName string) *HomeserverDeployment {
	t.Helper()
	server, ok := d.HS[hsName]
	if !ok {
		ct.Fatalf(t, "this deployment has no server %s", hsName)
	}
	return server
}

// UnauthenticatedClient gives a client that has not logged in.
func (d *Deployment) UnauthenticatedClient(t ct.TestLike, hsName string) *client.CSAPI {
	t.Helper()
	return d.client(t, hsName, client.CSAPIOpts{})
}

// AppServiceUser gives a client that acts as the application service's own user.
func (d *Deployment) AppServiceUser(t ct.TestLike, hsName, userID string) *client.CSAPI {
	t.Helper()
	server := d.server(t, hsName)
	token, ok := server.AccessTokens[userID]
	if !ok && userID != "" {
		ct.Fatalf(t, "%s knows no application service user %s", hsName, userID)
	}
	return d.client(t, hsName, client.CSAPIOpts{UserID: userID, AccessToken: token, DeviceID: server.DeviceIDs[userID]})
}

// Register makes a new user and gives its client.
func (d *Deployment) Register(t ct.TestLike, hsName string, opts helpers.RegistrationOpts) *client.CSAPI {
	t.Helper()
	password := opts.Password
	if password == "" {
		password = defaultPassword
	}
	localpart := fmt.Sprintf("user-%d", d.users.Add(1))
	if opts.LocalpartSuffix != "" {
		localpart += "-" + opts.LocalpartSuffix
	}
	user := d.client(t, hsName, client.CSAPIOpts{Password: password})
	if opts.IsAdmin {
		user.UserID, user.AccessToken, user.DeviceID = user.RegisterSharedSecret(t, localpart, password, true)
	} else {
		user.UserID, user.AccessToken, user.DeviceID = user.RegisterUser(t, localpart, password)
	}
	return user
}

// Login gives an existing user another device.
func (d *Deployment) Login(t ct.TestLike, hsName string, existing *client.CSAPI, opts helpers.LoginOpts) *client.CSAPI {
	t.Helper()
	localpart, _, err := gomatrixserverlib.SplitID('@', existing.UserID)
	if err != nil {
		ct.Fatalf(t, "cannot log in again: %s", err)
	}
	password := existing.Password
	if opts.Password != "" {
		password = opts.Password
	}
	user := d.client(t, hsName, client.CSAPIOpts{Password: password})
	var options []client.LoginOpt
	if opts.DeviceID != "" {
		options = append(options, client.WithDeviceID(opts.DeviceID))
	}
	user.UserID, user.AccessToken, user.DeviceID = user.LoginUser(t, localpart, password, options...)
	return user
}

func (d *Deployment) client(t ct.TestLike, hsName string, opts client.CSAPIOpts) *client.CSAPI {
	t.Helper()
	server := d.server(t, hsName)
	opts.BaseURL = server.BaseURL
	opts.Client = client.NewLoggedClient(t, hsName, &http.Client{Timeout: clientPatience, Transport: paced{}})
	opts.SyncUntilTimeout = syncPatience
	opts.Debug = d.deployer.config.DebugLoggingEnabled
	return client.NewCSAPI(opts)
}

// Restart stops and starts every server on the data it has.
func (d *Deployment) Restart(t ct.TestLike) error {
	t.Helper()
	for name := range d.HS {
		d.StopServer(t, name)
		d.StartServer(t, name)
	}
	return nil
}

// StopServer ends a server the way an operator does.
func (d *Deployment) StopServer(t ct.TestLike, hsName string) {
	t.Helper()
	if err := d.server(t, hsName).stop(d.deployer.config.SpawnHSTimeout); err != nil {
		ct.Fatalf(t, "stop: %s", err)
	}
}

// StartServer starts a stopped server on the data it left.
func (d *Deployment) StartServer(t ct.TestLike, hsName string) {
	t.Helper()
	server := d.server(t, hsName)
	err := server.start()
	if err == nil {
		err = server.wait(d.deployer.config.SpawnHSTimeout)
	}
	if err != nil {
		ct.Fatalf(t, "start: %s", err)
	}
}

// PauseServer freezes a server: its ports accept, nothing answers.
func (d *Deployment) PauseServer(t ct.TestLike, hsName string) {
	t.Helper()
	d.server(t, hsName).signal(syscall.SIGSTOP)
}

// UnpauseServer lets a frozen server go on.
func (d *Deployment) UnpauseServer(t ct.TestLike, hsName string) {
	t.Helper()
	d.server(t, hsName).signal(syscall.SIGCONT)
}

// RoundTripper reaches servers by their names on the federation port. The suite's own
// client does not check certificates; the homeservers do.
func (d *Deployment) RoundTripper() http.RoundTripper {
	return roundTripper{deployment: d}
}

type roundTripper struct{ deployment *Deployment }

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	name := request.URL.Hostname()
	target := net.JoinHostPort("127.0.0.1", request.URL.Port())
	if name != r.deployment.deployer.config.HostnameRunningComplement {
		server, ok := r.deployment.HS[name]
		if !ok {
			return nil, fmt.Errorf("this deployment has no server %s", name)
		}
		target = net.JoinHostPort(server.address, "8448")
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: name, InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, target)
		},
	}
	request = request.Clone(request.Context())
	request.URL.Scheme = "https"
	return transport.RoundTrip(request)
}

// paced keeps some milliseconds around what makes or joins a room, as a network would: the suite tells what came
// before and after by a clock that counts milliseconds, which the server shares.
type paced struct{}

func (paced) RoundTrip(request *http.Request) (*http.Response, error) {
	const pace = 3 * time.Millisecond
	path := request.URL.Path
	if strings.HasSuffix(path, "/createRoom") || strings.HasSuffix(path, "/join") || strings.Contains(path, "/join/") {
		time.Sleep(pace)
		defer time.Sleep(pace)
	}
	return http.DefaultTransport.RoundTrip(request)
}
