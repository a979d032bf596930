package keychain

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sync/errgroup"

	"github.com/credresolve/credresolve/backend"
)

// secretService is a client of the Secret Service (freedesktop.org, Secret Service API 0.2): GNOME Keyring, KeePassXC,
// KWallet and others. It reads items of any program, so it looks for an account under each of the names that programs give
// that attribute.
type secretService struct {
	bus         *bus
	service     string
	collection  string // empty: every collection
	interactive bool

	opening chan struct{} // capacity 1: held while the session is opened
	mu      sync.Mutex    // guards session
	session *session
}

const (
	secretsName     = "org.freedesktop.secrets"
	secretsPath     = "/org/freedesktop/secrets"
	serviceIface    = "org.freedesktop.Secret.Service"
	collectionIface = "org.freedesktop.Secret.Collection"
	itemIface       = "org.freedesktop.Secret.Item"
	promptIface     = "org.freedesktop.Secret.Prompt"
	noObject        = dbus.ObjectPath("/") // where the API has no object to name

	// schema is the attribute by which programs tell what an item is, and generic the value of items of libsecret's own
	// tool, as which ours show in programs for people.
	schema  = "xdg:schema"
	generic = "org.freedesktop.Secret.Generic"
)

// The attributes that hold an account: of secret-tool and ours; of python-keyring and go-keyring; of the keyring library,
// which knows no service but keeps a collection of its own.
const (
	attributeService  = "service"
	attributeAccount  = "account"
	attributeUsername = "username"
	attributeProfile  = "profile"
)

func newSecretService(c Config, env env, interactive bool) *secretService {
	return &secretService{
		bus: newBus(env), service: c.Service, collection: c.Collection, interactive: interactive,
		opening: make(chan struct{}, 1),
	}
}

func (s *secretService) name() string { return secretServiceName }

func (s *secretService) describe() backend.Description {
	where := "every collection, new items in the default one"
	if s.collection != "" {
		where = "collection " + s.collection
	}
	return backend.Description{Detail: "service " + s.service + " in " + where}
}

func (s *secretService) close() { s.bus.close() } // the service ends the session of a client that leaves

func (s *secretService) works(ctx context.Context) (string, error) {
	err := s.do(ctx, func(*session) error { return nil })
	if err != nil {
		return "", err
	}
	return "a Secret Service answers on the session bus", nil
}

// do calls f with a session, and once more with a new one when the connection or the session was lost. What f does may
// thus happen twice.
func (s *secretService) do(ctx context.Context, f func(*session) error) error {
	for attempt := 0; ; attempt++ {
		sess, err := s.open(ctx)
		if err == nil {
			err = f(sess)
		}
		if attempt == 0 && sess != nil && ctx.Err() == nil && s.isOver(sess, err) {
			continue
		}
		return busError(ctx, err)
	}
}

// isOver reports whether err is the end of sess, which then is used no more.
func (s *secretService) isOver(sess *session, err error) bool {
	var remote dbus.Error
	gone := lost(err)
	if !gone && (!errors.As(err, &remote) || remote.Name != "org.freedesktop.Secret.Error.NoSession") {
		return false
	}
	s.mu.Lock()
	if s.session == sess {
		s.session = nil
	}
	s.mu.Unlock()
	if gone {
		s.bus.drop(sess.conn)
	}
	return true
}

// open gives the session, and opens it, and the connection, if there is none. A session without path was never opened.
func (s *secretService) open(ctx context.Context) (*session, error) {
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, err := s.bus.connect(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	sess := s.session
	s.mu.Unlock()
	if sess != nil && sess.conn == conn {
		return sess, nil
	}
	if sess, err = openSession(ctx, conn); err != nil {
		return &session{conn: conn}, err
	}
	s.mu.Lock()
	s.session = sess
	s.mu.Unlock()
	return sess, nil
}

// item is an item that matched.
type item struct {
	path   dbus.ObjectPath
	locked bool
}

func (s *secretService) get(ctx context.Context, id string) ([]byte, error) {
	var value []byte
	err := s.do(ctx, func(sess *session) error {
		it, err := s.one(ctx, sess, id)
		if err != nil {
			return err
		}
		raw, err := s.read(ctx, sess, it)
		if err != nil {
			return err
		}
		value = raw
		inner, isEnvelope, err := s.unwrap(ctx, sess, it, raw)
		if isEnvelope {
			clear(raw)
			value = inner
		}
		return err
	})
	if err != nil {
		clear(value)
		return nil, err
	}
	return value, nil
}

// read gives the bytes of an item, which it unlocks first if the user may be asked.
func (s *secretService) read(ctx context.Context, sess *session, it item) ([]byte, error) {
	if it.locked {
		if err := s.unlock(ctx, sess.conn, it.path); err != nil {
			return nil, err
		}
	}
	var sealed secretStruct
	if err := sess.conn.call(ctx, secretsName, it.path, itemIface+".GetSecret", []any{sess.path}, &sealed); err != nil {
		return nil, itemError(err)
	}
	return sess.open(sealed)
}

// unwrap gives the value in raw when raw is the envelope of an item that the keyring library made: its attribute says so.
func (s *secretService) unwrap(ctx context.Context, sess *session, it item, raw []byte) (value []byte, isEnvelope bool, err error) {
	key, value, ok := openEnvelope(raw)
	if !ok {
		return nil, false, nil
	}
	var attributes map[string]string
	if err := sess.conn.property(ctx, secretsName, it.path, itemIface, "Attributes", &attributes); err != nil {
		return nil, false, itemError(err)
	}
	return value, attributes[attributeProfile] == key, nil
}

// one finds the item of id.
func (s *secretService) one(ctx context.Context, sess *session, id string) (item, error) {
	found, err := s.find(ctx, sess, id)
	switch {
	case err != nil:
		return item{}, err
	case len(found) > 1:
		return item{}, errAmbiguous(len(found))
	case len(found) == 1:
		return found[0], nil
	}
	// Some services show nothing of a locked collection: what is not seen there may exist.
	if err := s.unlocked(ctx, sess.conn); err != nil {
		return item{}, err
	}
	return item{}, errNoItem
}

// find gives the items that id matches, those of the most usual attributes alone.
func (s *secretService) find(ctx context.Context, sess *session, id string) ([]item, error) {
	if isQuery(id) {
		attributes, err := parseQuery(id)
		if err != nil {
			return nil, err
		}
		return s.search(ctx, sess, s.collection, attributes)
	}
	for _, account := range []string{attributeAccount, attributeUsername} {
		found, err := s.search(ctx, sess, s.collection, map[string]string{attributeService: s.service, account: id})
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	return s.search(ctx, sess, cmp.Or(s.collection, s.service), map[string]string{attributeProfile: id})
}

// search gives the items with attributes, of one collection or, with an empty name, of all.
func (s *secretService) search(ctx context.Context, sess *session, collection string, attributes map[string]string) ([]item, error) {
	if collection == "" {
		var unlocked, locked []dbus.ObjectPath
		if err := sess.conn.call(ctx, secretsName, secretsPath, serviceIface+".SearchItems", []any{attributes}, &unlocked, &locked); err != nil {
			return nil, err
		}
		found := make([]item, 0, len(unlocked)+len(locked))
		for _, p := range unlocked {
			found = append(found, item{p, false})
		}
		for _, p := range locked {
			found = append(found, item{p, true})
		}
		return found, nil
	}
	at, err := s.findCollection(ctx, sess.conn, collection)
	if err != nil || at == noObject {
		return nil, err
	}
	var paths []dbus.ObjectPath
	if err := sess.conn.call(ctx, secretsName, at, collectionIface+".SearchItems", []any{attributes}, &paths); err != nil || len(paths) == 0 {
		return nil, err
	}
	var locked bool
	if err := sess.conn.property(ctx, secretsName, at, collectionIface, "Locked", &locked); err != nil {
		return nil, err
	}
	found := make([]item, len(paths))
	for i, p := range paths {
		found[i] = item{p, locked}
	}
	return found, nil
}

// findCollection gives the collection of that alias, name or label; an empty name is the default one. It gives noObject
// when there is none.
func (s *secretService) findCollection(ctx context.Context, conn *busConn, name string) (dbus.ObjectPath, error) {
	at := noObject
	err := conn.call(ctx, secretsName, secretsPath, serviceIface+".ReadAlias", []any{cmp.Or(name, "default")}, &at)
	if err != nil || at != noObject {
		return at, err
	}
	name = cmp.Or(name, "login") // GNOME's own, where no default was named
	var all []dbus.ObjectPath
	if err := conn.property(ctx, secretsName, secretsPath, serviceIface, "Collections", &all); err != nil {
		return noObject, err
	}
	for _, at := range all {
		if unescapePath(path.Base(string(at))) == name {
			return at, nil
		}
	}
	for _, at := range all {
		var label string
		if err := conn.property(ctx, secretsName, at, collectionIface, "Label", &label); err != nil {
			return noObject, err
		}
		if label == name {
			return at, nil
		}
	}
	return noObject, nil
}

// unescapePath undoes the escaping of names in object paths: _ and two hexadecimal digits.
func unescapePath(s string) string {
	text, err := url.PathUnescape(strings.ReplaceAll(strings.ReplaceAll(s, "%", "%25"), "_", "%"))
	if err != nil {
		return s
	}
	return text
}

// unlocked fails with ErrLocked unless the collection in use is open, or the user may be asked and opens it.
func (s *secretService) unlocked(ctx context.Context, conn *busConn) error {
	at, err := s.findCollection(ctx, conn, s.collection)
	if err != nil || at == noObject {
		return err
	}
	var locked bool
	if err := conn.property(ctx, secretsName, at, collectionIface, "Locked", &locked); err != nil || !locked {
		return err
	}
	return s.unlock(ctx, conn, at)
}

// unlock unlocks a collection or an item, where that may ask the user. Otherwise it does not even try: the service would
// make a prompt, which GNOME Keyring keeps, also when it is dismissed, for as long as the connection lasts.
func (s *secretService) unlock(ctx context.Context, conn *busConn, at dbus.ObjectPath) error {
	if !s.interactive {
		return s.errLocked()
	}
	var (
		unlocked []dbus.ObjectPath
		prompt   dbus.ObjectPath
	)
	if err := conn.call(ctx, secretsName, secretsPath, serviceIface+".Unlock", []any{[]dbus.ObjectPath{at}}, &unlocked, &prompt); err != nil {
		return err
	}
	if prompt != noObject {
		_, err := s.prompt(ctx, conn, prompt)
		return err
	}
	if len(unlocked) == 0 {
		return s.errLocked()
	}
	return nil
}

func (s *secretService) errLocked() error {
	what := "the keychain's collection"
	if s.collection != "" {
		what += " " + s.collection
	}
	return errLocked(what, "unlock it, say in Seahorse (Passwords and Keys), or use --interactive")
}

// prompt lets the service ask the user, where that is allowed, and gives the result. Otherwise it fails with ErrLocked.
func (s *secretService) prompt(ctx context.Context, conn *busConn, prompt dbus.ObjectPath) (result dbus.Variant, err error) {
	dismiss := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = conn.call(ctx, secretsName, prompt, promptIface+".Dismiss", nil)
	}
	if !s.interactive {
		dismiss()
		return dbus.Variant{}, s.errLocked()
	}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	defer conn.RemoveSignal(signals)
	rule := []any{"type='signal',interface='" + promptIface + "',member='Completed',path='" + string(prompt) + "'"}
	if err := conn.call(ctx, busName, busPath, busName+".AddMatch", rule); err != nil {
		return dbus.Variant{}, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = conn.call(ctx, busName, busPath, busName+".RemoveMatch", rule)
	}()
	if err := conn.call(ctx, secretsName, prompt, promptIface+".Prompt", []any{""}); err != nil {
		return dbus.Variant{}, err
	}
	for {
		select {
		case <-ctx.Done():
			dismiss()
			return dbus.Variant{}, ctx.Err()
		case signal, open := <-signals:
			if !open {
				return dbus.Variant{}, dbus.ErrClosed
			}
			if signal.Path != prompt || signal.Name != promptIface+".Completed" {
				continue
			}
			var dismissed bool
			if err := dbus.Store(signal.Body, &dismissed, &result); err != nil {
				return dbus.Variant{}, errGarbage
			}
			if dismissed {
				return dbus.Variant{}, errLocked("the prompt was dismissed, and the keychain", "")
			}
			return result, nil
		}
	}
}

func (s *secretService) put(ctx context.Context, id string, value []byte) error {
	return s.do(ctx, func(sess *session) error {
		found, err := s.find(ctx, sess, id)
		switch {
		case err != nil:
			return err
		case len(found) > 1:
			return errAmbiguous(len(found))
		case len(found) == 1:
			return s.replace(ctx, sess, found[0], value)
		}
		return s.create(ctx, sess, id, value)
	})
}

// replace gives an item another value, in the form that the program uses which made it.
func (s *secretService) replace(ctx context.Context, sess *session, it item, value []byte) error {
	before, err := s.read(ctx, sess, it)
	if err != nil {
		return err
	}
	defer clear(before)
	inner, isEnvelope, err := s.unwrap(ctx, sess, it, before)
	clear(inner)
	if err != nil {
		return err
	}
	if isEnvelope {
		if value, err = rewrap(before, value); err != nil {
			return err
		}
		defer clear(value)
	}
	if err := s.set(ctx, sess, it.path, value); err != nil {
		return err
	}
	err = s.verify(ctx, sess, it.path, value)
	if errors.Is(err, errMangled) {
		if err := s.set(ctx, sess, it.path, before); err != nil {
			return err
		}
	}
	return err
}

func (s *secretService) set(ctx context.Context, sess *session, at dbus.ObjectPath, value []byte) error {
	sealed, err := sess.seal(value, contentType(value))
	if err != nil {
		return err
	}
	defer clear(sealed.Value)
	return itemError(sess.conn.call(ctx, secretsName, at, itemIface+".SetSecret", []any{sealed}))
}

// verify reads back what was written: services exist that keep secrets as texts and alter other bytes.
func (s *secretService) verify(ctx context.Context, sess *session, at dbus.ObjectPath, value []byte) error {
	stored, err := s.read(ctx, sess, item{path: at})
	defer clear(stored)
	if err == nil && !bytes.Equal(stored, value) {
		return errMangled
	}
	return err
}

func (s *secretService) create(ctx context.Context, sess *session, id string, value []byte) error {
	attributes, label := map[string]string{attributeService: s.service, attributeAccount: id}, s.service+"/"+id
	if isQuery(id) {
		var err error
		if attributes, err = parseQuery(id); err != nil {
			return err
		}
		label = cmp.Or(attributes[attributeAccount], attributes[attributeUsername], "credresolve")
	}
	if attributes[schema] == "" {
		attributes[schema] = generic
	}
	at, err := s.findCollection(ctx, sess.conn, s.collection)
	switch {
	case err != nil:
		return err
	case at == noObject && s.collection != "":
		return &backend.Error{
			Code: backend.CodeUnavailable, Reason: "the Secret Service has no collection " + s.collection,
			Remedy: "make it, say in Seahorse (Passwords and Keys), or leave the setting collection out",
		}
	case at == noObject:
		if at, err = s.createDefault(ctx, sess); err != nil {
			return err
		}
	}
	if err := s.unlocked(ctx, sess.conn); err != nil {
		return err
	}
	sealed, err := sess.seal(value, contentType(value))
	if err != nil {
		return err
	}
	defer clear(sealed.Value)
	properties := map[string]dbus.Variant{
		itemIface + ".Label":      dbus.MakeVariant(label),
		itemIface + ".Attributes": dbus.MakeVariant(attributes),
	}
	var made, prompt dbus.ObjectPath
	if err := sess.conn.call(ctx, secretsName, at, collectionIface+".CreateItem", []any{properties, sealed, true}, &made, &prompt); err != nil {
		return err
	}
	if made, err = s.made(ctx, sess.conn, made, prompt); err != nil {
		return err
	}
	err = s.verify(ctx, sess, made, value)
	if errors.Is(err, errMangled) {
		if err := s.delete(ctx, sess.conn, made); err != nil {
			return err
		}
	}
	return err
}

// createDefault makes the default collection of a user who has none, which asks for its password.
func (s *secretService) createDefault(ctx context.Context, sess *session) (dbus.ObjectPath, error) {
	if !s.interactive {
		return noObject, &backend.Error{
			Code: backend.CodeLocked, Reason: "the user has no keychain yet, and making one asks for its password",
			Remedy: "make one, say in Seahorse (Passwords and Keys), or use --interactive",
		}
	}
	properties := map[string]dbus.Variant{collectionIface + ".Label": dbus.MakeVariant("Login")}
	var made, prompt dbus.ObjectPath
	if err := sess.conn.call(ctx, secretsName, secretsPath, serviceIface+".CreateCollection", []any{properties, "default"}, &made, &prompt); err != nil {
		return noObject, err
	}
	return s.made(ctx, sess.conn, made, prompt)
}

// made gives the object that a call made at once, or will have made after a prompt.
func (s *secretService) made(ctx context.Context, conn *busConn, made, prompt dbus.ObjectPath) (dbus.ObjectPath, error) {
	if prompt == noObject || prompt == "" {
		return made, nil
	}
	result, err := s.prompt(ctx, conn, prompt)
	if err != nil {
		return noObject, err
	}
	made, ok := result.Value().(dbus.ObjectPath)
	if !ok {
		return noObject, errGarbage
	}
	return made, nil
}

func (s *secretService) remove(ctx context.Context, id string) error {
	return s.do(ctx, func(sess *session) error {
		it, err := s.one(ctx, sess, id)
		if err != nil {
			return err
		}
		if it.locked {
			if err := s.unlock(ctx, sess.conn, it.path); err != nil {
				return err
			}
		}
		return s.delete(ctx, sess.conn, it.path)
	})
}

func (s *secretService) delete(ctx context.Context, conn *busConn, at dbus.ObjectPath) error {
	var prompt dbus.ObjectPath
	if err := conn.call(ctx, secretsName, at, itemIface+".Delete", nil, &prompt); err != nil {
		return itemError(err)
	}
	if prompt == noObject {
		return nil
	}
	_, err := s.prompt(ctx, conn, prompt)
	return err
}

// listing is how many items are asked for their attributes at once.
const listing = 16

func (s *secretService) list(ctx context.Context, prefix string) ([]backend.Entry, error) {
	var entries map[string]backend.Entry
	err := s.do(ctx, func(sess *session) error {
		found, err := s.search(ctx, sess, s.collection, map[string]string{attributeService: s.service})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return s.unlocked(ctx, sess.conn)
		}
		entries = make(map[string]backend.Entry, len(found)) // anew at each attempt
		var mu sync.Mutex
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(listing)
		for _, it := range found {
			group.Go(func() error {
				e, err := s.entry(ctx, sess, it)
				if err != nil || e.ID == "" || !strings.HasPrefix(e.ID, prefix) {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				entries[e.ID] = e
				return nil
			})
		}
		return group.Wait()
	})
	list := make([]backend.Entry, 0, len(entries))
	for e := range maps.Values(entries) {
		list = append(list, e)
	}
	return list, err
}

// entry tells of an item; without an ID when the item has no account, or was deleted meanwhile.
func (s *secretService) entry(ctx context.Context, sess *session, it item) (backend.Entry, error) {
	var properties map[string]dbus.Variant
	err := sess.conn.call(ctx, secretsName, it.path, "org.freedesktop.DBus.Properties.GetAll", []any{itemIface}, &properties)
	switch err = itemError(err); {
	case errors.Is(err, backend.ErrNotFound):
		return backend.Entry{}, nil
	case err != nil:
		return backend.Entry{}, err
	}
	attributes, _ := properties["Attributes"].Value().(map[string]string)
	e := backend.Entry{ID: cmp.Or(attributes[attributeAccount], attributes[attributeUsername])}
	if checkID(e.ID) != nil || isQuery(e.ID) {
		return backend.Entry{}, nil
	}
	if modified, ok := properties["Modified"].Value().(uint64); ok && modified > 0 {
		e.Modified = time.Unix(int64(modified), 0)
	}
	if label, ok := properties["Label"].Value().(string); ok && label != "" {
		e.Metadata = map[string]string{"label": label}
	}
	return e, nil
}

func (s *secretService) probe(ctx context.Context) error {
	return s.do(ctx, func(sess *session) error { return s.unlocked(ctx, sess.conn) })
}

func contentType(value []byte) string {
	if utf8.Valid(value) {
		return "text/plain"
	}
	return "application/octet-stream"
}
