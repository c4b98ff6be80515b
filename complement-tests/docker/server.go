package docker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/client"
	"github.com/matrix-org/complement/config"
)

// HomeserverDeployment is one homeserver: a folder of its own and, while it runs, a process.
type HomeserverDeployment struct {
	BaseURL      string
	FedBaseURL   string
	ContainerID  string
	AccessTokens map[string]string
	DeviceIDs    map[string]string

	name    string
	address string
	folder  string
	logPath string
	process *exec.Cmd
	ended   chan struct{}

	mutex   sync.Mutex
	clients []*client.CSAPI
}

// newServer lays out the folder of a server: certificate, authority, application services.
func newServer(cfg *config.Complement, slot int, name string, services []b.ApplicationService) (*HomeserverDeployment, error) {
	number := strings.TrimPrefix(name, "hs")
	address := net.ParseIP(fmt.Sprintf("127.0.%d.%s", slot, number))
	if address == nil {
		return nil, fmt.Errorf("no address for a server named %s", name)
	}
	folder, err := os.MkdirTemp("", "complement-"+name+"-")
	if err != nil {
		return nil, err
	}
	server := &HomeserverDeployment{
		BaseURL:      fmt.Sprintf("http://%s:8008", address),
		FedBaseURL:   fmt.Sprintf("https://%s:8448", address),
		ContainerID:  folder,
		AccessTokens: map[string]string{},
		DeviceIDs:    map[string]string{},
		name:         name,
		address:      address.String(),
		folder:       folder,
		logPath:      filepath.Join(folder, "server.log"),
	}
	var hosts strings.Builder
	fmt.Fprintf(&hosts, "127.0.0.1 localhost %s\n", cfg.HostnameRunningComplement)
	for number := 1; number <= 9; number++ {
		fmt.Fprintf(&hosts, "127.0.%d.%d hs%d\n", slot, number, number)
	}
	if err := os.WriteFile(filepath.Join(folder, "hosts"), []byte(hosts.String()), 0o644); err != nil {
		return nil, err
	}
	for _, service := range services {
		path := filepath.Join(folder, "appservice", service.ID+".yaml")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(registration(service)), 0o600); err != nil {
			return nil, err
		}
		server.AccessTokens["@"+service.SenderLocalpart+":"+name] = service.ASToken
	}
	return server, writeCertificate(cfg, server)
}

// writeCertificate signs a certificate for the server's name with the suite's authority.
func writeCertificate(cfg *config.Complement, server *HomeserverDeployment) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: server.name},
		DNSNames:     []string{server.name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, cfg.CACertificate, &key.PublicKey, cfg.CAPrivateKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: signed},
		"tls.key": {Type: "PRIVATE KEY", Bytes: private},
		"ca.crt":  {Type: "CERTIFICATE", Bytes: cfg.CACertificate.Raw},
	} {
		if err := os.WriteFile(filepath.Join(server.folder, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start runs the launcher named by COMPLEMENT_LAUNCHER, which turns itself into the homeserver,
// under a hosts file of its own.
func (s *HomeserverDeployment) start() error {
	output, err := os.OpenFile(s.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	s.process = exec.Command("unshare", "--mount", "sh", "-c",
		`mount --bind "$FOLDER/hosts" /etc/hosts && exec "$COMPLEMENT_LAUNCHER"`)
	s.process.Dir = s.folder
	s.process.Stdout, s.process.Stderr = output, output
	s.process.Env = append(os.Environ(), "SERVER_NAME="+s.name, "ADDRESS="+s.address, "FOLDER="+s.folder)
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go func(process *exec.Cmd, ended chan struct{}) {
		_ = process.Wait()
		close(ended)
	}(s.process, s.ended)
	return nil
}

// wait returns when the server answers on both ports.
func (s *HomeserverDeployment) wait(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if s.answers() {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended instead of starting, see its log", s.name)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s did not answer within %s", s.name, limit)
}

func (s *HomeserverDeployment) answers() bool {
	response, err := (&http.Client{Timeout: time.Second}).Get(s.BaseURL + "/_matrix/client/versions")
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return false
	}
	connection, err := net.DialTimeout("tcp", s.address+":8448", time.Second)
	if err != nil {
		return false
	}
	return connection.Close() == nil
}

// stop asks the server to end, as an operator would, and insists after a while.
func (s *HomeserverDeployment) stop(limit time.Duration) error {
	if s.process == nil {
		return fmt.Errorf("%s is not running", s.name)
	}
	s.signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		s.process = nil
		return nil
	case <-time.After(limit):
		s.kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM", s.name, limit)
	}
}

func (s *HomeserverDeployment) kill() {
	if s.process == nil {
		return
	}
	select {
	case <-s.ended:
	default:
		s.signal(syscall.SIGKILL)
		<-s.ended
	}
	s.process = nil
}

// signal reaches the whole process group, so that a launcher which forks is reached too.
func (s *HomeserverDeployment) signal(signal syscall.Signal) {
	if err := syscall.Kill(-s.process.Process.Pid, signal); err != nil {
		log.Printf("signal %s to %s: %s", signal, s.name, err)
	}
}

func (s *HomeserverDeployment) printLog() {
	text, err := os.ReadFile(s.logPath)
	if err != nil {
		log.Printf("no log of %s: %s", s.name, err)
		return
	}
	log.Printf("---- log of %s ----\n%s---- end of the log of %s ----", s.name, text, s.name)
}
