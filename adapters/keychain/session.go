package keychain

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"math/big"

	"github.com/godbus/dbus/v5"
)

// The algorithms of a session (Secret Service API 0.2, "Transfer of Secrets").
const (
	algorithmDH    = "dh-ietf1024-sha256-aes128-cbc-pkcs7"
	algorithmPlain = "plain"
)

// session is our session with the Secret Service, under which secrets cross the bus. It lives as long as its connection.
type session struct {
	conn *busConn
	path dbus.ObjectPath
	key  []byte // of AES-128; nil: secrets cross in plain text, over a socket that only this user can open
}

// secretStruct is a secret as it crosses the bus.
type secretStruct struct {
	Session     dbus.ObjectPath
	Parameters  []byte // the initialisation vector, empty in a plain session
	Value       []byte
	ContentType string
}

// openSession opens an encrypted session, or a plain one where the service knows no encryption.
func openSession(ctx context.Context, conn *busConn) (*session, error) {
	private, public := newExchange()
	s := &session{conn: conn}
	var answer dbus.Variant
	err := conn.call(ctx, secretsName, secretsPath, serviceIface+".OpenSession", []any{algorithmDH, dbus.MakeVariant(public)}, &answer, &s.path)
	var remote dbus.Error
	if errors.As(err, &remote) && remote.Name == "org.freedesktop.DBus.Error.NotSupported" {
		return s, conn.call(ctx, secretsName, secretsPath, serviceIface+".OpenSession", []any{algorithmPlain, dbus.MakeVariant("")}, &answer, &s.path)
	}
	if err != nil {
		return nil, err
	}
	theirs, ok := answer.Value().([]byte)
	if !ok {
		return nil, errGarbage
	}
	if s.key, err = sharedKey(private, theirs); err != nil {
		return nil, err
	}
	return s, nil
}

// seal makes value ready to cross the bus; it keeps nothing of value in a plain session's place but a copy.
func (s *session) seal(value []byte, contentType string) (secretStruct, error) {
	sealed := secretStruct{Session: s.path, Parameters: []byte{}, ContentType: contentType}
	if s.key == nil {
		sealed.Value = bytes.Clone(value)
		return sealed, nil
	}
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return sealed, err
	}
	pad := aes.BlockSize - len(value)%aes.BlockSize
	sealed.Value = append(append(make([]byte, 0, len(value)+pad), value...), bytes.Repeat([]byte{byte(pad)}, pad)...)
	sealed.Parameters = make([]byte, aes.BlockSize)
	_, _ = rand.Read(sealed.Parameters) // never fails, as its documentation says
	cipher.NewCBCEncrypter(block, sealed.Parameters).CryptBlocks(sealed.Value, sealed.Value)
	return sealed, nil
}

// open gives the bytes of a secret that crossed the bus, in the memory of sealed.Value.
func (s *session) open(sealed secretStruct) ([]byte, error) {
	if s.key == nil {
		return sealed.Value, nil
	}
	n := len(sealed.Value)
	if len(sealed.Parameters) != aes.BlockSize || n == 0 || n%aes.BlockSize != 0 {
		return nil, errGarbage
	}
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(block, sealed.Parameters).CryptBlocks(sealed.Value, sealed.Value)
	pad := int(sealed.Value[n-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(sealed.Value[n-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		clear(sealed.Value)
		return nil, errGarbage
	}
	return sealed.Value[:n-pad], nil
}

// groupBytes is the size of the group's prime.
const groupBytes = 128

// group gives the prime of the second Oakley group, whose generator is 2 (RFC 2409, 6.2). It keeps secrets from those who
// only listen on the bus, and is what the Secret Service has.
func group() *big.Int {
	p, _ := new(big.Int).SetString("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"+
		"EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"+
		"49286651ECE65381FFFFFFFFFFFFFFFF", 16)
	return p
}

func newExchange() (private *big.Int, public []byte) {
	secret := make([]byte, groupBytes)
	_, _ = rand.Read(secret)
	private = new(big.Int).SetBytes(secret)
	clear(secret)
	return private, new(big.Int).Exp(big.NewInt(2), private, group()).Bytes()
}

// sharedKey derives the key of a session from our private and their public number.
func sharedKey(private *big.Int, theirs []byte) ([]byte, error) {
	p, y := group(), new(big.Int).SetBytes(theirs)
	one := big.NewInt(1)
	if y.Cmp(one) <= 0 || y.Cmp(new(big.Int).Sub(p, one)) >= 0 {
		return nil, errGarbage
	}
	shared := new(big.Int).Exp(y, private, p).FillBytes(make([]byte, groupBytes))
	defer clear(shared)
	return hkdf.Key(sha256.New, shared, nil, "", aes.BlockSize)
}
