package main

import (
	"context"
	"fmt"
	"sync"

	dbplugin "github.com/hashicorp/vault/sdk/database/dbplugin/v5"
)

// memdb is a database plugin whose users live in memory, so that the real database engine can hand
// out leased credentials without a database.
type memdb struct {
	mu    sync.Mutex
	users map[string]string
	n     int
}

func newMemdb() (any, error) {
	return dbplugin.NewDatabaseErrorSanitizerMiddleware(&memdb{users: map[string]string{}}, nil), nil
}

func (m *memdb) Initialize(_ context.Context, r dbplugin.InitializeRequest) (dbplugin.InitializeResponse, error) {
	return dbplugin.InitializeResponse{Config: r.Config}, nil
}

func (m *memdb) NewUser(_ context.Context, r dbplugin.NewUserRequest) (dbplugin.NewUserResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	u := fmt.Sprintf("v-%s-%d", r.UsernameConfig.RoleName, m.n)
	m.users[u] = r.Password
	return dbplugin.NewUserResponse{Username: u}, nil
}

func (m *memdb) UpdateUser(_ context.Context, r dbplugin.UpdateUserRequest) (dbplugin.UpdateUserResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Password != nil {
		m.users[r.Username] = r.Password.NewPassword
	}
	return dbplugin.UpdateUserResponse{}, nil
}

func (m *memdb) DeleteUser(_ context.Context, r dbplugin.DeleteUserRequest) (dbplugin.DeleteUserResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[r.Username]; !ok {
		return dbplugin.DeleteUserResponse{}, fmt.Errorf("no such user")
	}
	delete(m.users, r.Username)
	return dbplugin.DeleteUserResponse{}, nil
}

func (m *memdb) Type() (string, error) { return "memdb", nil }
func (m *memdb) Close() error          { return nil }
