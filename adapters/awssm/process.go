package awssm

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"

	"github.com/credresolve/credresolve/internal/process"
)

const (
	maxProcessOutput = 1 << 20 // credentials are a few hundred bytes
	processLinger    = time.Second
)

// processes runs the credential_process of a profile. The SDK would run it with our standard input, which may be the secret
// to put or belong to the program that we run, with our standard error, where a secret may show, and beyond our own end.
type processes struct {
	life        context.Context // ends with Close
	interactive bool            // the process may ask on the terminal

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// begin counts a process, or reports false after close.
func (p *processes) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Add(1)
	}
	return !p.closed
}

// close waits for processes that life has ended, so that none is left behind by a program that exits next.
func (p *processes) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
}

// provider gives the credentials that command prints. Without a person to ask, it runs in a session of its own, whose every
// process ends with it.
func (p *processes) provider(command string) aws.CredentialsProvider {
	shell := []string{"/bin/sh", "-c", command}
	if runtime.GOOS == "windows" {
		file, err := exec.LookPath("cmd.exe")
		if err != nil {
			file = "cmd.exe"
		}
		shell = []string{file, "/C", command}
	}
	if !p.interactive {
		return &processProvider{processes: p, shell: shell}
	}
	return processcreds.NewProviderCommand(processcreds.NewCommandBuilderFunc(func(ctx context.Context) (*exec.Cmd, error) {
		ctx, cancel := context.WithCancel(ctx)
		context.AfterFunc(p.life, cancel)
		cmd := exec.CommandContext(ctx, shell[0], shell[1:]...)
		cmd.WaitDelay = processLinger // a child of it may hold the pipe
		return cmd, nil
	}))
}

type processProvider struct {
	processes *processes
	shell     []string
}

// ProviderSources implements aws.CredentialProviderSource.
func (p *processProvider) ProviderSources() []aws.CredentialSource {
	return []aws.CredentialSource{aws.CredentialSourceProcess}
}

var errProcessAnswer = errors.New("the process printed no credentials")

// Retrieve implements aws.CredentialsProvider. What is printed is read as the AWS command does:
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html.
func (p *processProvider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if !p.processes.begin() {
		return aws.Credentials{}, &loginError{err: errClosed}
	}
	defer p.processes.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.processes.life, cancel)()
	printed, err := process.Run(ctx, process.Command{
		Path: p.shell[0], Args: p.shell, Env: os.Environ(), Timeout: processcreds.DefaultTimeout, MaxOutput: maxProcessOutput,
	})
	defer clear(printed)
	if err != nil {
		if p.processes.life.Err() != nil {
			err = &loginError{err: errClosed}
		}
		return aws.Credentials{}, err
	}
	var answer struct {
		Version         int
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      *time.Time
		AccountID       string `json:"AccountId"`
	}
	if json.Unmarshal(printed, &answer) != nil || answer.Version != 1 || answer.AccessKeyID == "" || answer.SecretAccessKey == "" {
		return aws.Credentials{}, errProcessAnswer
	}
	creds := aws.Credentials{
		AccessKeyID: answer.AccessKeyID, SecretAccessKey: answer.SecretAccessKey, SessionToken: answer.SessionToken,
		AccountID: answer.AccountID, Source: processcreds.ProviderName,
	}
	if answer.Expiration != nil {
		creds.CanExpire, creds.Expires = true, *answer.Expiration
		if !creds.Expires.After(time.Now()) {
			return aws.Credentials{}, errProcessAnswer
		}
	}
	return creds, nil
}
