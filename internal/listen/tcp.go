package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// lookupTime bounds how long the host's name may take to be resolved.
const lookupTime = 5 * time.Second

// TCP listens on address, host and port, on loopback alone: a name must resolve to loopback addresses and nothing else, and
// the listener is on the first of them, IPv4 before IPv6. Port 0 is one that the system chooses. Every user of the host can
// connect: callers must bring a token.
func TCP(address string) (net.Listener, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, badAddress("is not a host and a port")
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, badAddress("has no port from 0 to 65535")
	}
	ip, err := loopback(host)
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(ip, uint16(port))
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &backend.Error{
			Code: backend.CodeUnavailable, Reason: fmt.Sprintf("another process listens on %s", at),
			Remedy: "end that process or choose another port",
		}
	case err != nil:
		return nil, failed(err, "cannot listen on %s", at)
	}
	if err := checkLoopback(l.Addr()); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func badAddress(what string) error {
	return &backend.Error{
		Code: backend.CodeInvalidConfig, Reason: "the address of a TCP listener " + what,
		Remedy: "write a loopback address with its port, such as 127.0.0.1:8270",
	}
}

// loopback gives the address that host stands for.
func loopback(host string) (netip.Addr, error) {
	if host == "" {
		return netip.Addr{}, badAddress("has no host, which means every interface")
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
		defer cancel()
		if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil || len(ips) == 0 {
			return netip.Addr{}, badAddress("has a host that does not resolve")
		}
	}
	var chosen netip.Addr
	for _, ip := range ips {
		ip = ip.Unmap()
		if !ip.IsLoopback() {
			return netip.Addr{}, badAddress("is not one of loopback")
		}
		if !chosen.IsValid() || ip.Is4() && !chosen.Is4() {
			chosen = ip
		}
	}
	return chosen, nil
}

// checkLoopback checks where a listener is.
func checkLoopback(a net.Addr) error {
	if t, ok := a.(*net.TCPAddr); !ok || !t.IP.IsLoopback() {
		return badAddress(fmt.Sprintf("is %s, which is not one of loopback", a))
	}
	return nil
}
