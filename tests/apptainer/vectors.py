"""Signed SIF files, good and bad, with the keys that are accepted for each.

Apptainer, GnuPG and OpenSSL make them; what none of them would make is put together here.
"""
import base64
import copy
import hashlib
import json
import os
import struct
import subprocess

TABLE, SLOT, SLOTS = 4096, 585, 48
GENERIC, PARTITION, JSON, SIGNATURE = 0x4007, 0x4004, 0x4006, 0x4005
GROUP = 0xF0000000
PAYLOAD = 'application/vnd.sylabs.sif-metadata+json'


def run(*command, **more):
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, **more)
    if done.returncode:
        raise RuntimeError(f'{command}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}')
    return done.stdout


class Sif:
    """A SIF in memory, which can be changed in every way."""

    def __init__(self, data):
        self.data = bytearray(data)

    def copy(self):
        return copy.deepcopy(self)

    def slot(self, number):
        """Where the descriptor of the object starts."""
        return TABLE + SLOT * (number - 1)

    def get(self, form, at):
        return struct.unpack_from('<' + form, self.data, at)[0]

    def put(self, form, at, value):
        struct.pack_into('<' + form, self.data, at, value)
        return self

    def place(self, number):
        at = self.slot(number)
        return self.get('q', at + 17), self.get('q', at + 25)

    def object(self, number):
        offset, size = self.place(number)
        return bytes(self.data[offset:offset + size])

    def flip(self, at):
        self.data[at] ^= 1
        return self

    def add(self, datatype, data, group=1, link=0, extra=b'', name=b'object'):
        """Appends an object in the first free slot."""
        number = next(n for n in range(1, SLOTS + 1) if not self.data[self.slot(n) + 4])
        at, offset = self.slot(number), len(self.data)
        descriptor = struct.pack('<iBIII', datatype, 1, number, group | GROUP, link)
        descriptor += struct.pack('<qqqqqqq', offset, len(data), len(data), 1, 1, 0, 0)
        descriptor += name.ljust(128, b'\0') + extra.ljust(384, b'\0')
        assert len(descriptor) == SLOT
        self.data[at:at + SLOT] = descriptor
        self.data += data
        self.put('q', 80, self.get('q', 80) - 1)
        self.put('q', 120, self.get('q', 120) + len(data))
        return self

    def sign(self, data, fingerprint='', group=1):
        """Appends a signature of a group."""
        extra = struct.pack('<i', 1) + bytes.fromhex(fingerprint)
        return self.add(SIGNATURE, data, group=0, link=group | GROUP, extra=extra, name=b'signature')

    def replace(self, number, data):
        """Gives an object other contents, at the end of the file."""
        at = self.slot(number)
        self.put('q', at + 17, len(self.data)).put('q', at + 25, len(data))
        self.data += data
        return self

    def document(self, group=1, algorithm='sha256'):
        """What is signed of a group."""
        make = {'sha512_256': 'sha512-256', 'sha512_224': 'sha512-224'}.get(algorithm, algorithm)
        digest = lambda data: algorithm + ':' + hashlib.new(make, data).hexdigest()
        objects = [n for n in range(1, SLOTS + 1) if self.data[self.slot(n) + 4]
                   and self.get('I', self.slot(n) + 9) == group | GROUP]
        entries = []
        for number in objects:
            at = self.slot(number)
            raw = self.data[at:at + SLOT]
            relative = struct.pack('<I', number - objects[0])
            signed = bytes(raw[:5] + relative + raw[13:17] + raw[25:33] + raw[41:49] + raw[57:])
            entries.append({'relativeId': number - objects[0], 'descriptorDigest': digest(signed),
                            'objectDigest': digest(self.object(number))})
        header = digest(bytes(self.data[:45] + self.data[48:64]))
        return {'version': 1, 'header': {'digest': header}, 'objects': entries}


class Maker:
    """Makes keys and signatures in a directory of its own."""

    def __init__(self, directory, apptainer):
        self.directory, self.apptainer = directory, apptainer
        self.home = os.path.join(directory, 'home')
        os.makedirs(os.path.join(directory, 'gnupg'), mode=0o700)
        os.makedirs(os.path.join(self.home, '.apptainer', 'keys'), mode=0o700)
        self.gpg = ['gpg', '--homedir', os.path.join(directory, 'gnupg'), '--batch', '--quiet', '--no-tty',
                    '--pinentry-mode', 'loopback', '--passphrase', '', '--trust-model', 'always', '--yes']

    def path(self, name, data=None):
        path = os.path.join(self.directory, name)
        if data is not None:
            with open(path, 'wb') as file:
                file.write(data)
        return path

    # Apptainer

    def apptainer_run(self, *arguments):
        return run(self.apptainer, *arguments, env={'HOME': self.home, 'PATH': os.environ['PATH']})

    def plain(self, groups=1):
        """An image with two objects in each group, and no signature."""
        path = self.path('plain.sif')
        if os.path.exists(path):
            os.unlink(path)
        self.apptainer_run('sif', 'new', path)
        for group in range(1, groups + 1):
            root = self.path('root.squashfs', b'hsqs' + bytes(4092) + bytes([group]))
            kind = '2' if group == 1 else '3'
            self.apptainer_run('sif', 'add', '--datatype', '4', '--partfs', '1', '--parttype', kind, '--partarch', '2',
                               '--groupid', str(group), '--filename', 'root.squashfs', path, root)
            about = self.path('about.json', b'{"group":%d}' % group)
            self.apptainer_run('sif', 'add', '--datatype', '6', '--groupid', str(group), path, about)
        with open(path, 'rb') as file:
            return Sif(file.read())

    def signed(self, sif, *options):
        """What `apptainer sign` makes of an image."""
        path = self.path('sign.sif', sif.data)
        self.apptainer_run('sign', *options, path)
        with open(path, 'rb') as file:
            return Sif(file.read())

    def apptainer_key(self):
        """A key pair of Apptainer's own in its keyring; the public key."""
        self.apptainer_run('key', 'newpair', '--bit-length', '2048', '--name', 'Site', '--email', 'site@example.org',
                           '--comment', '', '--password', '', '--push=false')
        with open(os.path.join(self.home, '.apptainer', 'keys', 'pgp-public'), 'rb') as file:
            return file.read()

    # GnuPG

    def key(self, name, algorithm='ed25519', usage='sign', expires='never', time=None, options=()):
        """A key's fingerprint. `time` is in seconds since 1970."""
        user = f'{name} <{name}@example.org>'
        run(*self.gpg, *self.at(time), *options, '--quick-gen-key', user, algorithm, usage, expires)
        return self.fingerprints(name)[0]

    def at(self, time):
        faked = ['--faked-system-time', f'{time}!', '--ignore-time-conflict', '--ignore-valid-from']
        return [] if time is None else faked

    def fingerprints(self, name):
        listing = run(*self.gpg, '--with-colons', '--list-keys', f'{name}@example.org').decode()
        return [line.split(':')[9] for line in listing.splitlines() if line.startswith('fpr:')]

    def subkey(self, name, algorithm='ed25519', usage='sign', expires='never', time=None):
        primary = self.fingerprints(name)[0]
        run(*self.gpg, *self.at(time), '--quick-add-key', primary, algorithm, usage, expires)
        return self.fingerprints(name)[-1]

    def revoke(self, fingerprint):
        with open(os.path.join(self.directory, 'gnupg', 'openpgp-revocs.d', f'{fingerprint}.rev'), 'rb') as file:
            certificate = file.read().replace(b':-----BEGIN', b'-----BEGIN')
        run(*self.gpg, '--import', self.path('revocation.asc', certificate))

    def revoke_subkey(self, primary):
        # What it asks is answered, which it would not ask in a batch.
        asking = [argument for argument in self.gpg if argument != '--batch']
        done = subprocess.run([*asking, '--command-fd', '0', '--edit-key', primary, 'key 1', 'revkey', 'save'],
                              input=b'y\n0\n\ny\n', capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())

    def public(self, *names, armour=False):
        return run(*self.gpg, *(['--armor'] if armour else []), '--export', *(f'{name}@example.org' for name in names))

    def clear_signed(self, key, text, digest='SHA256', time=None, options=()):
        """A clear-signed message; `key` with an exclamation mark for that subkey."""
        text = text if isinstance(text, bytes) else json.dumps(text, separators=(',', ':')).encode()
        source = self.path('text', text)
        weak = ['--allow-weak-digest-algos'] if digest in ('SHA1', 'RIPEMD160', 'MD5') else []
        return run(*self.gpg, *self.at(time), *weak, *options, '--local-user', key, '--digest-algo', digest,
                   '--output', '-', '--clear-sign', source)

    # OpenSSL

    def pem(self, name, *options):
        """A private key in PEM and its public key."""
        private, public = self.path(f'{name}.key.pem'), self.path(f'{name}.pem')
        run('openssl', 'genpkey', '-out', private, *options)
        run('openssl', 'pkey', '-in', private, '-pubout', '-out', public)
        return private, public

    def envelope(self, private, document, payload_type=PAYLOAD, signed_type=None):
        """A DSSE envelope of one key."""
        text = document if isinstance(document, bytes) else json.dumps(document, separators=(',', ':')).encode()
        kind = (signed_type or payload_type).encode()
        signed = self.path('pae', b'DSSEv1 %d %s %d %s' % (len(kind), kind, len(text), text))
        ed25519 = b'ED25519' in run('openssl', 'pkey', '-in', private, '-noout', '-text')
        if ed25519:
            signature = run('openssl', 'pkeyutl', '-sign', '-rawin', '-inkey', private, '-in', signed)
        else:
            signature = run('openssl', 'dgst', '-sha256', '-sign', private, signed)
        encode = lambda data: base64.b64encode(data).decode()
        return {'payloadType': payload_type, 'payload': encode(text),
                'signatures': [{'keyid': '', 'sig': encode(signature)}]}
