from .convolutionalize import ClassMaps as ClassMaps
from .convolutionalize import FullyConvolutional as FullyConvolutional
from .convolutionalize import class_maps as class_maps
from .convolutionalize import convolutionalize as convolutionalize
