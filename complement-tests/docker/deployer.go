package docker

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/config"
)

// Deployer starts the servers of one deployment.
type Deployer struct {
	config *config.Complement
}

// Deployments that live at the same time have servers of the same names: each takes a slot,
// 127.0.SLOT.N is then the address of its hsN, and its servers have a hosts file of their own.
var (
	slotsMutex sync.Mutex
	slots      [64]bool
)

func takeSlot() (int, error) {
	slotsMutex.Lock()
	defer slotsMutex.Unlock()
	for slot := 1; slot < len(slots); slot++ {
		if !slots[slot] {
			slots[slot] = true
			return slot, nil
		}
	}
	return 0, errors.New("too many deployments at the same time")
}

func giveSlotBack(slot int) {
	slotsMutex.Lock()
	defer slotsMutex.Unlock()
	slots[slot] = false
}

// NewDeployer gives a deployer; the namespace is not needed without containers.
func NewDeployer(_ string, cfg *config.Complement) (*Deployer, error) {
	return &Deployer{config: cfg}, nil
}

// Deploy starts every server of a blueprint noted before, and waits until all of them answer.
func (d *Deployer) Deploy(_ context.Context, blueprintName string) (*Deployment, error) {
	blueprintsMutex.Lock()
	blueprint, ok := blueprints[blueprintName]
	blueprintsMutex.Unlock()
	if !ok {
		return nil, fmt.Errorf("no blueprint named %s", blueprintName)
	}
	deployment, err := newDeployment(d)
	if err != nil {
		return nil, err
	}
	for _, server := range blueprint.Homeservers {
		if err := deployment.add(server.Name, server.ApplicationServices); err != nil {
			deployment.end()
			return nil, err
		}
	}
	if err := deployment.waitAll(); err != nil {
		deployment.printLogs()
		deployment.end()
		return nil, err
	}
	return deployment, nil
}

// dirtySlot is where the servers live that tests share.
const dirtySlot = 0

// CreateDirtyDeployment starts hs1 for tests that share their servers.
func (d *Deployer) CreateDirtyDeployment() (*Deployment, error) {
	server, err := d.CreateDirtyServer("hs1")
	if err != nil {
		return nil, err
	}
	deployment := &Deployment{Dirty: true, HS: map[string]*HomeserverDeployment{}, deployer: d, slot: dirtySlot}
	deployment.HS["hs1"] = server
	return deployment, nil
}

// CreateDirtyServer starts one more server for tests that share their servers.
func (d *Deployer) CreateDirtyServer(name string) (*HomeserverDeployment, error) {
	server, err := newServer(d.config, dirtySlot, name, nil)
	if err != nil {
		return nil, err
	}
	if err := server.start(); err != nil {
		return nil, err
	}
	if err := server.wait(d.config.SpawnHSTimeout); err != nil {
		server.printLog()
		server.kill()
		return nil, err
	}
	return server, nil
}

// registration is the YAML that tells a homeserver about an application service.
func registration(service b.ApplicationService) string {
	var text strings.Builder
	fmt.Fprintf(&text, "id: %s\nurl: '%s'\n", service.ID, service.URL)
	fmt.Fprintf(&text, "as_token: %s\nhs_token: %s\n", service.ASToken, service.HSToken)
	fmt.Fprintf(&text, "sender_localpart: %s\nrate_limited: %t\n", service.SenderLocalpart, service.RateLimited)
	fmt.Fprintf(&text, "push_ephemeral: %t\norg.matrix.msc3202: %t\n", service.SendEphemeral, service.EnableEncryption)
	text.WriteString("namespaces:\n  users: [{exclusive: false, regex: '.*'}]\n  rooms: []\n  aliases: []\n")
	return text.String()
}

// keepLog saves a server's log under the test's name for whoever reads the failure later.
func keepLog(server *HomeserverDeployment, testName string) {
	folder := os.Getenv("COMPLEMENT_LOGS")
	if folder == "" {
		return
	}
	name := strings.NewReplacer("/", "_", " ", "_").Replace(testName) + "-" + server.name + ".log"
	target := filepath.Join(folder, name)
	text, err := os.ReadFile(server.logPath)
	if err == nil {
		err = os.WriteFile(target, text, 0o644)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Printf("cannot keep the log of %s: %s", server.name, err)
	}
}
