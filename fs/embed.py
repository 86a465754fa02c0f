"""embed.py FILE HEADER NAME: the bytes of the file as the C string NAME."""
import sys

path, header, name = sys.argv[1:]
with open(path, 'rb') as file:
    data = file.read() + b'\0'
with open(header, 'w', encoding='ascii') as out:
    out.write(f'static const char {name}[] = {{\n')
    for at in range(0, len(data), 20):
        out.write('\t' + ''.join(f'{byte if byte < 128 else byte - 256},' for byte in data[at:at + 20]) + '\n')
    out.write('};\n')
