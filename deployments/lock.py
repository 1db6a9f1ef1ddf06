import re, sys
from importlib.metadata import distribution, version, PackageNotFoundError
from packaging.requirements import Requirement
from packaging.markers import default_environment
def norm(n): return re.sub(r"[-_.]+","-",n).lower()
def closure(roots, skip=()):
    seen={}
    todo=[(r,()) for r in roots]
    while todo:
        n,ex=todo.pop()
        n=norm(n)
        if n in skip or n in seen: continue
        try: d=distribution(n)
        except PackageNotFoundError: print('missing',n,file=sys.stderr); continue
        seen[n]=d.version.split('+')[0]
        for r in d.requires or []:
            q=Requirement(r)
            if q.marker and not any(q.marker.evaluate({**default_environment(),'extra':e}) for e in ('',)+tuple(ex)): continue
            todo.append((q.name,q.extras))
    return seen
contract=['pydantic','pyarrow','ase','numpy']
mace=closure(['mace-torch','torch']+contract)
tp=closure(['python-ace','tensorflow-cpu','pandas','scipy']+contract,skip=('tensorpotential','tensorflow','tf-keras'))
tp['tensorpotential']=version('tensorpotential'); tp['tf-keras']=version('tf-keras')
for name,pins,head in(('mace',mace,'# The exact packages of the image `mace`: labelling with torch.\n'),('tensorpot',tp,'# The exact packages of the image `tensorpot`: data sets, selection, pacemaker, evaluation.\n# tensorpotential and tf-keras are installed with --no-deps: their own requirement is the CUDA build of TensorFlow.\n')):
    open(f'containers/{name}/requirements.lock','w').write(head+''.join(f'{k}=={v}\n' for k,v in sorted(pins.items())))
    print(name,len(pins))
