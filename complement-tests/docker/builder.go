// Package docker starts homeservers as plain processes of this network namespace.
//
// It stands in for the suite's package of the same name, which starts containers: same
// entry points, no Docker. Every server has an address of its own, ports 8008 (HTTP) and 8448 (TLS).
package docker

import (
	"fmt"
	"sync"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/config"
)

// Builder remembers the blueprints that tests ask for.
type Builder struct {
	Config *config.Complement
}

var (
	blueprintsMutex sync.Mutex
	blueprints      = map[string]b.Blueprint{}
)

// NewBuilder gives a builder for one package of tests.
func NewBuilder(cfg *config.Complement) (*Builder, error) {
	return &Builder{Config: cfg}, nil
}

// Cleanup has nothing to do: processes end with their deployment or with the namespace.
func (*Builder) Cleanup() {}

// ConstructBlueprintIfNotExist notes the blueprint so that Deploy finds it by its name.
func (*Builder) ConstructBlueprintIfNotExist(blueprint b.Blueprint) error {
	for _, server := range blueprint.Homeservers {
		if len(server.Rooms) > 0 {
			return fmt.Errorf("blueprint %s asks for rooms, which this deployer does not make", blueprint.Name)
		}
	}
	blueprintsMutex.Lock()
	defer blueprintsMutex.Unlock()
	blueprints[blueprint.Name] = blueprint
	return nil
}
